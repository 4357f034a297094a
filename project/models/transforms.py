"""Pictures to tensors and back: normalisation and patch order.

Shapes: pixels [..., C, height, width] in [-1, 1]; tokens [..., L, patch * patch * C] in reading order (rows of
patches outside), inside a token row, column, channel: "c (h p) (w q) -> (h w) (p q c)".
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor


class PictureTransform(Protocol):
    """How a model wants a picture to be resized and normalised before it reads it. Sizes are in pixels."""

    def size(self, height: int, width: int, img_num: int = 1) -> tuple[int, int]:
        """(height, width) after the resize of one of `img_num` pictures of a sequence."""

    def resize(self, image: Image.Image, img_num: int = 1) -> Image.Image:
        """The picture as RGB in that size. Raises ValueError for values that are no levels."""

    def __call__(self, image: Image.Image, img_num: int = 1) -> Tensor:
        """fp32 [3, height, width], resized and normalised. Raises ValueError as `resize` does."""


def normalise(pixels_HWC: Tensor, mean: float = 0.5, std: float = 0.5) -> Tensor:
    """uint8 [..., height, width, C] to fp32 [..., C, height, width]: (pixel / 255 - mean) / std."""
    return ((pixels_HWC.float() / 255 - mean) / std).movedim(-1, -3).contiguous()


def to_uint8(pixels_CHW: Tensor) -> Tensor:
    """[..., C, height, width] in [-1, 1] (clamped) to uint8 [..., height, width, C].

    Rounds down as upstream does; the small offset keeps `to_uint8(normalise(u)) == u` exact, where rounding of
    floats would else lose a level.
    """
    levels = (pixels_CHW.float() * 0.5 + 0.5).clamp(0, 1) * 255
    return (levels + 1e-4).to(torch.uint8).movedim(-3, -1).contiguous()


def patchify(pixels_CHW: Tensor, patch: int) -> Tensor:
    """[..., C, height, width] to [..., L, patch * patch * C]; L = (height / patch) * (width / patch).

    Raises ValueError if a side is no multiple of `patch`.
    """
    *batch, channels, height, width = pixels_CHW.shape
    if height % patch or width % patch:
        raise ValueError(f"a map of {height}x{width} cannot be cut into patches of {patch}x{patch}: resize it first")
    rows, columns = height // patch, width // patch
    grid = pixels_CHW.reshape(math.prod(batch), channels, rows, patch, columns, patch)
    tokens = torch.einsum("nchpwq->nhwpqc", grid)
    return tokens.reshape(*batch, rows * columns, patch * patch * channels)


def unpatchify(tokens_LD: Tensor, height: int, width: int, patch: int, channels: int) -> Tensor:
    """Inverse of `patchify`: [..., L, patch * patch * channels] to [..., channels, height, width].

    `height` and `width` are those of the map that was cut, not of the grid of tokens. Raises ValueError if the
    tokens do not fill that map exactly.
    """
    *batch, length, dims = tokens_LD.shape
    rows, columns = height // patch, width // patch
    if height % patch or width % patch or (length, dims) != (rows * columns, patch * patch * channels):
        raise ValueError(
            f"tokens [{length}, {dims}] do not make {channels} channels of {height}x{width} "
            f"in patches of {patch}x{patch}"
        )
    grid = tokens_LD.reshape(math.prod(batch), rows, columns, patch, patch, channels)
    return torch.einsum("nhwpqc->nchpwq", grid).reshape(*batch, channels, height, width)
