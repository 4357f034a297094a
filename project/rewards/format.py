"""A reward for reasoning that stands between its tags: `<think> ... </think>`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from project.core.metrics import Mean
from project.rewards.base import Reward, RewardOutput
from project.trajectory import Trajectory

THINK_START, THINK_END = "<think>", "</think>"


class ThinkTags(Reward):
    """1 for a text between its tags, else 0.

    Of several texts the last one counts, which belongs to the image that is judged. A sample without any (one that
    stopped before this round) has 1: it wrote nothing wrong.

    Args:
        start: what the text begins with.
        end: what the text ends with.
        weight: factor in the sum of rewards; with 0 it is only logged.
        mask_image: a badly formed text also takes the image of its sample out of training, whatever the weight.
        text_only: it counts for the text objective alone: the advantage of a picture says nothing about the tags. If
            false, it is added to the shared reward (published for reasoning text-to-image, with weight 1.0): a badly
            formed text then lowers the advantage of its picture too, as a worse picture would.

    Raises:
        ValueError: if a tag is empty or both are equal.
    """

    def __init__(
        self,
        start: str = THINK_START,
        end: str = THINK_END,
        weight: float = 0.5,
        mask_image: bool = False,
        text_only: bool = True,
    ) -> None:
        super().__init__(weight=weight, text_only=text_only)
        if not start.strip() or not end.strip() or start == end:
            raise ValueError(f"start={start!r}, end={end!r}: give two different tags")
        self.start = start
        self.end = end
        self.mask_image = mask_image

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        formed_N = torch.tensor(
            [not t.texts or is_tagged(t.texts[-1].text, self.start, self.end) for t in trajectories], dtype=torch.bool
        )
        return RewardOutput(
            reward_N=formed_N.float(),
            well_formed_N=formed_N if self.mask_image else None,
            metrics={"reward/think_tags": Mean.over(formed_N.tolist())},
        )


def is_tagged(text: str, start: str, end: str) -> bool:
    """Whether a text begins with `start` and ends with `end`, has each once, and says something in between."""
    text = text.strip()
    return (
        text.startswith(start)
        and text.endswith(end)
        and text.count(start) == text.count(end) == 1
        and len(text) >= len(start) + len(end)
        and bool(text[len(start) : -len(end)].strip())
    )
