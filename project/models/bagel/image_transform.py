"""BAGEL's rule for the sizes of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.core.images import rgb
from project.models.transforms import normalise


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
