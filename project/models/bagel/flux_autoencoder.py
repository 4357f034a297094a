"""The autoencoder of FLUX, which is diffusers' `AutoencoderKL` (Rombach et al. 2022, arXiv:2112.10752).

Files hold the names of the original checkpoints, whose attention has 1x1 convolutions where diffusers has linear
layers.
Unlike its predecessors FLUX's has no 1x1 convolutions around the code (`quant_conv`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from project.models.bagel.autoencoder import Autoencoder, AutoencoderConfig

_NORM_GROUPS = 32
_IN_ATTENTION = re.compile(r"\.mid\.attn_1\.(q|k|v|proj_out)\.weight$")
"""Matrices that files hold as 1x1 convolutions."""
_RENAMED = (
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_(q|k|v)", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)", r"up.\1.block.\2"),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample"),
)
"""diffusers' names, and those of the original checkpoints."""


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
        # Takes seconds to import: only where such an autoencoder is made.
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        levels = len(config.ch_mult)
        self.network = AutoencoderKL(
            in_channels=config.in_channels,
            out_channels=config.out_ch,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(config.ch * multiple for multiple in config.ch_mult),
            layers_per_block=config.num_res_blocks,
            latent_channels=config.z_channels,
            norm_num_groups=_NORM_GROUPS,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        self._channels, self._levels = config.z_channels, levels

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def downsample(self) -> int:
        return 2 ** (self._levels - 1)

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        distribution = self.network.encode(pixels).latent_dist
        return distribution.mean, distribution.std

    def reconstruct(self, code: Tensor) -> Tensor:
        decoded: Tensor = self.network.decode(code).sample
        return decoded

    def to_file(self) -> dict[str, Tensor]:
        tensors = {self._name_in_file(name): tensor for name, tensor in self.state_dict().items()}
        return {n: t[..., None, None] if _IN_ATTENTION.search(n) else t for n, t in tensors.items()}

    def from_file(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = {self._name_in_file(name): name for name in self.state_dict()}
        return {names[n]: t[..., 0, 0] if _IN_ATTENTION.search(n) else t for n, t in tensors.items()}

    def _name_in_file(self, name: str) -> str:
        name = name.removeprefix("network.")
        for pattern, original in _RENAMED:
            name = re.sub(pattern, original, name)
        # diffusers counts the decoder's levels in the order they are run, the original by resolution.
        return re.sub(r"\.up\.(\d+)", lambda found: f".up.{self._levels - 1 - int(found[1])}", name)
