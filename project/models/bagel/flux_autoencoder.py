"""The autoencoder of FLUX: the convolutional VAE of latent diffusion (Rombach et al. 2022, arXiv:2112.10752).

Residual blocks of GroupNorm, SiLU and 3x3 convolutions, one single-head self-attention at the lowest resolution.
Module names are those of the original checkpoints, so released weights load without a key map. Unlike its
predecessors FLUX's has no 1x1 convolutions around the code (`quant_conv`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from project.models.bagel.autoencoder import Autoencoder, AutoencoderConfig

_NORM_GROUPS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FluxAutoencoderConfig(AutoencoderConfig):
    """Defaults are those of the released weights (83.8 M parameters)."""

    ch: int = 128
    """Channels at full resolution; `ch * ch_mult[i]` after i halvings."""
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    """Residual blocks per resolution of the encoder; the decoder has one more."""
    z_channels: int = 16
    in_channels: int = 3
    out_ch: int = 3
    downsample: int | None = None
    """Pixels per latent along a side: 2^(len(ch_mult) - 1), checked if given."""
    resolution: int | None = None
    """Side of the training pictures [pixels]; convolutions do not depend on it."""

    def __post_init__(self) -> None:
        if self.downsample not in (None, 2 ** (len(self.ch_mult) - 1)):
            raise ValueError(f"downsample {self.downsample} contradicts the {len(self.ch_mult)} entries of ch_mult")
        if self.ch % _NORM_GROUPS:
            raise ValueError(f"ch is {self.ch}; it must be a multiple of {_NORM_GROUPS}")


class FluxAutoencoder(Autoencoder):
    """Encoder to mean and log-variance of a diagonal Gaussian, and decoder."""

    architecture = "flux"
    config_class: ClassVar = FluxAutoencoderConfig

    def __init__(self, config: FluxAutoencoderConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self._channels = config.z_channels
        self._downsample = 2 ** (len(config.ch_mult) - 1)

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def downsample(self) -> int:
        return self._downsample

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(pixels).chunk(2, dim=1)
        return mean, (0.5 * log_variance).exp()

    def reconstruct(self, code: Tensor) -> Tensor:
        return self.decoder(code)


class Encoder(nn.Module):
    """Pixels [N, C, height, width] to mean and log-variance [N, 2 * z_channels, height / 2^n, width / 2^n]."""

    def __init__(self, config: FluxAutoencoderConfig) -> None:
        super().__init__()
        self.conv_in = _conv3x3(config.in_channels, config.ch)
        self.down = nn.ModuleList()
        width = config.ch
        for i, multiple in enumerate(config.ch_mult):
            is_last = i == len(config.ch_mult) - 1
            self.down.append(
                EncoderLevel(width, config.ch * multiple, blocks=config.num_res_blocks, downsample=not is_last)
            )
            width = config.ch * multiple
        self.mid = Middle(width)
        self.norm_out = _norm(width)
        self.conv_out = _conv3x3(width, 2 * config.z_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.conv_in(pixels)
        for level in self.down:
            hidden = level(hidden)
        return self.conv_out(F.silu(self.norm_out(self.mid(hidden))))


class Decoder(nn.Module):
    """Code [N, z_channels, h, w] to pixels [N, C, h * 2^n, w * 2^n]. `up[i]` works at the resolution of `down[i]`."""

    def __init__(self, config: FluxAutoencoderConfig) -> None:
        super().__init__()
        widths = [config.ch * multiple for multiple in config.ch_mult]
        self.conv_in = _conv3x3(config.z_channels, widths[-1])
        self.mid = Middle(widths[-1])
        inputs = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(
            DecoderLevel(inputs[i], widths[i], blocks=config.num_res_blocks + 1, upsample=i > 0)
            for i in range(len(widths))
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = _conv3x3(widths[0], config.out_ch)

    def forward(self, code: Tensor) -> Tensor:
        hidden = self.mid(self.conv_in(code))
        for level in reversed(self.up):
            hidden = level(hidden)
        return self.conv_out(F.silu(self.norm_out(hidden)))


class EncoderLevel(nn.Module):
    """Residual blocks at one resolution, then (if not the last) a halving."""

    def __init__(self, width_in: int, width_out: int, *, blocks: int, downsample: bool) -> None:
        super().__init__()
        self.block = _blocks(width_in, width_out, blocks)
        self.downsample = Downsample(width_out) if downsample else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.downsample(self.block(hidden))


class DecoderLevel(nn.Module):
    """Residual blocks at one resolution, then (if not the last) a doubling."""

    def __init__(self, width_in: int, width_out: int, *, blocks: int, upsample: bool) -> None:
        super().__init__()
        self.block = _blocks(width_in, width_out, blocks)
        self.upsample = Upsample(width_out) if upsample else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        return self.upsample(self.block(hidden))


class Middle(nn.Module):
    """Residual block, self-attention, residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width)
        self.attn_1 = SelfAttention(width)
        self.block_2 = ResidualBlock(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(hidden)))


class ResidualBlock(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.norm1 = _norm(width_in)
        self.conv1 = _conv3x3(width_in, width_out)
        self.norm2 = _norm(width_out)
        self.conv2 = _conv3x3(width_out, width_out)
        # Without a change of width the checkpoint has no tensor here, and Identity asks for none.
        self.nin_shortcut = nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        update = self.conv1(F.silu(self.norm1(hidden)))
        update = self.conv2(F.silu(self.norm2(update)))
        return self.nin_shortcut(hidden) + update


class SelfAttention(nn.Module):
    """Single-head attention between all places of a map, as a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        normed = self.norm(hidden)
        query, key, value = (layer(normed).flatten(2).mT for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(query, key, value)
        return hidden + self.proj_out(attended.mT.reshape(hidden.shape))


class Downsample(nn.Module):
    """Halve both sides. The padding is at the right and the bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(F.pad(hidden, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double both sides by nearest neighbour, then smooth."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv3x3(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))


def _blocks(width_in: int, width_out: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width_in if i == 0 else width_out, width_out) for i in range(count)))


def _conv3x3(width_in: int, width_out: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, 3, padding=1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_NORM_GROUPS, width, eps=1e-6)
