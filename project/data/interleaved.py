"""What a model learns from before there are rewards: texts and pictures in the order in which it reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    text: str
    loss: bool = False
    """Whether the model learns to write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    pixels: np.ndarray
    """uint8 [H, W, 3]."""
    role: Literal["drawn", "clean", "seen_by_vit"]
    """drawn: denoised with loss; clean: VAE latents as context; seen_by_vit: ViT tokens as context."""


Block = Text | Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One packed sequence: blocks in the order of the context."""

    blocks: tuple[Block, ...]
    task: str
    """Examples of one task look alike, and are packed together."""
