"""Pictures to tensors and back: BAGEL's resize rule, normalisation and patch order.

Shapes: pixels [..., C, height, width] in [-1, 1]; tokens [..., L, patch * patch * C] in reading order (rows of
patches outside), inside a token row, column, channel: "c (h p) (w q) -> (h w) (p q c)".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.core.images import rgb


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTransform:
    """Resize by BAGEL's rule (bicubic, antialiased), then normalise to (pixel / 255 - mean) / std.

    Sizes are in pixels. The rule keeps the aspect ratio up to rounding to the stride; being small on the short
    side enlarges a picture, except that its long side never exceeds `max_size`.
    """

    max_size: int
    """Longest long side."""
    min_size: int
    """Shortest short side, unless the long side would exceed `max_size`."""
    stride: int
    """Both sides become multiples of this."""
    max_pixels: int = 14 * 14 * 9 * 1024
    """Area shared by the pictures of one sequence; a picture above its share shrinks."""
    mean: float = 0.5
    std: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.min_size <= self.max_size:
            raise ValueError(
                f"ImageTransform needs 0 < stride <= min_size <= max_size, got stride {self.stride}, "
                f"min_size {self.min_size}, max_size {self.max_size}"
            )

    def size(self, height: int, width: int, img_num: int = 1) -> tuple[int, int]:
        """(height, width) after the resize of one of `img_num` pictures of a sequence.

        Upstream multiplies the sides (not the area) by the ratio of the areas where a picture is too large, so it
        shrinks further than needed; kept, because the released weights saw those sizes.
        """
        scale = min(self.max_size / max(height, width), 1.0)
        scale = max(scale, self.min_size / min(height, width))
        height, width = self._scaled(height, width, scale)
        share = self.max_pixels / img_num
        if height * width > share:
            height, width = self._scaled(height, width, share / (height * width))
        if max(height, width) > self.max_size:
            height, width = self._scaled(height, width, self.max_size / max(height, width))
        return height, width

    def _scaled(self, height: int, width: int, scale: float) -> tuple[int, int]:
        def side(length: int) -> int:
            return max(self.stride, round(round(length * scale) / self.stride) * self.stride)

        return side(height), side(width)

    def resize(self, image: Image.Image, img_num: int = 1) -> Image.Image:
        """The picture as RGB in the size of the rule. Raises ValueError as `project.core.images.rgb` does."""
        image = rgb(image)
        height, width = self.size(image.height, image.width, img_num)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def __call__(self, image: Image.Image, img_num: int = 1) -> Tensor:
        """fp32 [3, height, width], resized and normalised. Raises ValueError as `project.core.images.rgb` does."""
        pixels_HWC = torch.from_numpy(np.array(self.resize(image, img_num)))
        return normalise(pixels_HWC, self.mean, self.std)


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
