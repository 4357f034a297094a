"""A small autoencoder for simple pictures: a linear patch code by PCA with a residual decoder.

Encoder: each patch of 8x8 pixels becomes 16 numbers, its projections on the principal components. Decoder: the
transposed map plus a convolutional correction that sees neighbouring patches, both at the latents' resolution. Cheap
enough to fit and to run on one CPU core.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.core.randomness import keyed_generator
from project.models.bagel.autoencoder import Autoencoder, AutoencoderConfig
from project.models.transforms import normalise

log = logging.getLogger(__name__)

_WARM_UP = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchAutoencoderConfig(AutoencoderConfig):
    """The weights themselves scale the latents, hence factors of 1 and 0."""

    scale_factor: float = 1.0
    shift_factor: float = 0.0
    z_channels: int = 16
    patch_size: int = 8
    """Pixels along a side of a patch."""
    width: int = 64
    """Channels of the residual decoder."""
    num_res_blocks: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.z_channels <= 3 * self.patch_size**2:
            raise ValueError(f"z_channels is {self.z_channels}; a patch has {3 * self.patch_size**2} numbers at most")


class PatchAutoencoder(Autoencoder):
    """Linear encoder without uncertainty, linear plus residual decoder. See `fit_patch_autoencoder`."""

    architecture = "patch"
    config_class: ClassVar = PatchAutoencoderConfig

    def __init__(self, config: PatchAutoencoderConfig) -> None:
        super().__init__(config)
        self._channels, self._downsample = config.z_channels, config.patch_size
        self.encoder = nn.Conv2d(3, config.z_channels, config.patch_size, stride=config.patch_size)
        self.decoder = PatchDecoder(config)

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def downsample(self) -> int:
        return self._downsample

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The code and a standard deviation of 0: a draw is the mean."""
        code = self.encoder(pixels)
        return code, torch.zeros_like(code)

    def reconstruct(self, code: Tensor) -> Tensor:
        return self.decoder(code)


class PatchDecoder(nn.Module):
    """Code [N, z_channels, h, w] to pixels [N, 3, h * patch_size, w * patch_size]."""

    def __init__(self, config: PatchAutoencoderConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        values = 3 * config.patch_size**2
        self.linear = nn.Conv2d(config.z_channels, values, 1)
        self.conv_in = nn.Conv2d(config.z_channels, config.width, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.num_res_blocks)))
        self.conv_out = nn.Conv2d(config.width, values, 1)
        # The correction starts at zero, so that training starts from the linear decoder.
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, code: Tensor) -> Tensor:
        patches = self.linear(code) + self.conv_out(self.blocks(self.conv_in(code)))
        return F.pixel_shuffle(patches, self.patch_size)


class ResidualBlock(nn.Module):
    """Two convolutions of 3x3 as a residual that starts at zero, which stands in for normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.conv2(F.silu(self.conv1(F.silu(hidden))))


def fit_patch_autoencoder(
    pictures: Iterator[np.ndarray],
    steps: int = 1000,
    *,
    config: PatchAutoencoderConfig | None = None,
    whiten: float = 0.5,
    noise: float = 0.2,
    learning_rate: float = 4e-3,
    pca_batches: int = 32,
    seed: int = 0,
    log_every: int = 100,
) -> PatchAutoencoder:
    """Fit the linear code in closed form, then the decoder by AdamW on L1 + MSE.

    Args:
        pictures: endless batches, uint8 [N, height, width, 3].
        steps: batches for the decoder; 0 leaves the linear one.
        config: of the autoencoder; None for its defaults.
        whiten: exponent w in [0, 1]: component i with standard deviation s_i is scaled by s_i^-w. 0 keeps the
            components' energies, 1 makes all alike; 0.5 gives, of all scalings with the same total variance, the
            smallest squared error in the picture for equal independent errors in all latents (a diffusion model's).
        noise: the decoder is trained on latents with normal noise whose standard deviation is uniform in
            [0, noise] per picture, so that it forgives the errors of generated latents.
        learning_rate: peak, after 50 steps of warm-up; falls linearly to 0 over the second half.
        pca_batches: first batches, used for the linear code.
        seed: of the decoder's weights and the noise.
        log_every: steps between log lines.

    Raises:
        ValueError: `whiten` is outside [0, 1], or `pictures` ends early.
    """
    if not 0 <= whiten <= 1:
        raise ValueError(f"whiten is {whiten}; give an exponent between 0 (keep energies) and 1 (all alike)")
    config = config or PatchAutoencoderConfig()
    sample = [_pixels(batch) for batch in islice(pictures, pca_batches)]
    if len(sample) < pca_batches:
        raise ValueError(f"pictures ended after {len(sample)} of {pca_batches} batches: give an endless iterator")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = PatchAutoencoder(config)
    kept = _fit_linear(autoencoder, torch.cat(sample), whiten)
    log.info("linear patch code: %d channels keep %.1f%% of the variance", config.z_channels, 100 * kept)
    _fit_decoder(autoencoder, pictures, steps, noise, learning_rate, seed, log_every)
    return autoencoder.eval()


def _pixels(batch: np.ndarray) -> Tensor:
    return normalise(torch.from_numpy(batch))


def principal_patches(patches_MV: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """PCA of M patches of V numbers: mean [V], components [V, channels], standard deviations, share of variance.

    Components are sorted by variance; each one's largest entry is positive, so that they do not depend on the
    eigenvalue solver. A deviation of 0 is returned as 1e-6 of the largest.
    """
    patches_MV = patches_MV.double()
    mean_V = patches_MV.mean(0)
    centred_MV = patches_MV - mean_V
    variance_V, vector_VV = torch.linalg.eigh(centred_MV.T @ centred_MV / len(patches_MV))
    variance, vector = variance_V.flip(0)[:channels], vector_VV.flip(1)[:, :channels]
    largest = vector.abs().argmax(0, keepdim=True)
    vector = vector * vector.gather(0, largest).sign()
    deviation = variance.clamp(min=0).sqrt()
    share = (variance.sum() / variance_V.sum()).item()
    return mean_V, vector, deviation.clamp(min=1e-6 * deviation.max().item()), share


def _fit_linear(autoencoder: PatchAutoencoder, pixels: Tensor, whiten: float) -> float:
    """Set the encoder and the linear decoder; latents get mean 0 and, averaged over channels, variance 1."""
    patch = autoencoder.downsample
    # pixel_unshuffle orders a patch as the encoder's weight and pixel_shuffle do: channel, row, column.
    patches_MV = F.pixel_unshuffle(pixels, patch).movedim(1, -1).flatten(0, 2)
    mean_V, component_VC, deviation_C, share = principal_patches(patches_MV, autoencoder.channels)
    gain_C = deviation_C**-whiten
    gain_C = gain_C / (gain_C * deviation_C).square().mean().sqrt()
    encoder_CV = (component_VC * gain_C).T
    decoder_VC = component_VC / gain_C
    autoencoder.encoder.load_state_dict(
        {"weight": encoder_CV.unflatten(1, (3, patch, patch)), "bias": -encoder_CV @ mean_V}
    )
    autoencoder.decoder.linear.load_state_dict({"weight": decoder_VC[..., None, None], "bias": mean_V})
    return share


def _fit_decoder(
    autoencoder: PatchAutoencoder,
    pictures: Iterator[np.ndarray],
    steps: int,
    noise: float,
    learning_rate: float,
    seed: int,
    log_every: int,
) -> None:
    autoencoder.requires_grad_(False).decoder.requires_grad_(True)
    optimizer = torch.optim.AdamW(autoencoder.decoder.parameters(), learning_rate, betas=(0.9, 0.97))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / _WARM_UP, 2 * (1 - step / max(steps, 1)))
    )
    generator = keyed_generator(seed, "patch autoencoder")
    step = 0
    for step, batch in enumerate(islice(pictures, steps), start=1):
        pixels = _pixels(batch)
        latents = autoencoder.encode(pixels)
        level = noise * torch.rand(len(latents), 1, 1, 1, generator=generator)
        decoded = autoencoder.decode(latents + level * torch.randn(latents.shape, generator=generator))
        absolute, squared = F.l1_loss(decoded, pixels), F.mse_loss(decoded, pixels)
        optimizer.zero_grad()
        (absolute + squared).backward()
        optimizer.step()
        schedule.step()
        if step % log_every == 0:
            log.info("autoencoder step %d of %d: L1 %.4f, MSE %.5f", step, steps, absolute.item(), squared.item())
    if step < steps:
        raise ValueError(f"pictures ended after {step} of {steps} training batches: give an endless iterator")
    autoencoder.requires_grad_(True)
