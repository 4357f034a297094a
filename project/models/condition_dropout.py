"""Leaving out what a picture is drawn from, so that the model also learns to draw without it, as guidance needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from project.models.packing import Block, DroppedPicture, LatentBlock, PictureBlock, TextBlock


@dataclass(frozen=True, kw_only=True)
class ConditionDropout:
    """Shares of the conditions that are left out, each drawn on its own. The defaults are BAGEL's.

    Attributes:
        text: of the texts.
        vit: of the pictures read by the vision encoder.
        vae: of the clean latents.
    """

    text: float = 0.1
    vit: float = 0.3
    vae: float = 0.3

    def __post_init__(self) -> None:
        for name, share in dataclasses.asdict(self).items():
            if not 0 <= share <= 1:
                raise ValueError(f"condition dropout: {name} = {share} is a share: give a number from 0 to 1")

    def share(self, block: Block) -> float:
        """How often such a block is left out where it is a condition."""
        if isinstance(block, TextBlock):
            return 0.0 if block.loss else self.text
        if isinstance(block, PictureBlock):
            return self.vit
        return self.vae if isinstance(block, LatentBlock) and block.noise_LD is None else 0.0


def drop_conditions(
    blocks: Sequence[Block], dropout: ConditionDropout, generator: torch.Generator, *, keep: int = 0
) -> list[Block]:
    """The blocks of one example without some of its conditions.

    A condition is a block without a loss that a noised picture follows. A text that is left out is as if it had never
    been; a picture that is left out still takes its position.

    Args:
        keep: first blocks that always stay (a system prompt is no condition).
    """
    last = max((i for i, b in enumerate(blocks) if isinstance(b, LatentBlock) and b.noise_LD is not None), default=-1)
    kept: list[Block] = []
    for place, block in enumerate(blocks):
        share = dropout.share(block) if keep <= place < last else 0.0
        if share == 0 or torch.rand((), generator=generator).item() >= share:
            kept.append(block)
        elif isinstance(block, PictureBlock | LatentBlock):
            kept.append(DroppedPicture(block))
    return kept
