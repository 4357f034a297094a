"""How probable a prompt is to a model that has seen the picture: what rewards of this kind share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from project.core.digest import image_digest
from project.core.metrics import Mean
from project.rewards.base import Reward, RewardOutput, where
from project.trajectory import Prompt, Trajectory

Baseline = Literal["none", "no_picture"]


class LikelihoodReward(Reward):
    """Mean log-probability [nats] of the tokens of the prompt, read after the picture and an instruction.

    A picture that shows what the prompt says makes its words probable (arXiv 2603.00918). Long prompts and rare words
    have a lower value whatever the picture; `baseline: no_picture` subtracts what the same model gives to the prompt
    without a picture. Within the samples of one prompt this is a constant, so with one reward it changes no advantage.

    Args:
        instruction: text between the picture and the prompt; none if empty.
        baseline: subtract the value without the picture, or nothing.
        batch_size: prompts per forward.
        weight: factor in the sum of rewards; with 0 it is only logged.

    Raises:
        ValueError: for a batch size below 1, or an unknown baseline.
    """

    def __init__(self, instruction: str, baseline: Baseline, batch_size: int, weight: float) -> None:
        super().__init__(weight=weight)
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: give 1 or more")
        if baseline not in ("none", "no_picture"):
            raise ValueError(f"baseline={baseline!r} is unknown: choose none or no_picture")
        self.instruction = instruction
        self.baseline = baseline
        self.batch_size = batch_size

    @abstractmethod
    def mean_log_probs(self, prompts: Sequence[str], images: Sequence[np.ndarray] | None) -> list[float]:
        """Per prompt the mean log-probability of its tokens, NaN for a prompt without any.

        Args:
            images: uint8 [height, width, 3], one per prompt; None = the prompts alone.
        """

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError for a prompt without text."""
        for prompt in prompts:
            if not prompt.text.strip():
                raise ValueError(f"{where(prompt)}prompt {prompt.id!r} is empty: there is nothing to be probable")

    @torch.no_grad()
    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        """Equal pictures of one prompt are read once."""
        images = [t.image.pixels_HWC.numpy() for t in trajectories]
        keys = [(image_digest(image), t.prompt.text) for image, t in zip(images, trajectories, strict=True)]
        distinct = dict(zip(keys, images, strict=True))
        found = dict(zip(distinct, self._in_batches([p for _, p in distinct], list(distinct.values())), strict=True))
        rewards = [found[key] for key in keys]
        metrics = {"likelihood/prompt": Mean.over(rewards)}
        if self.baseline == "no_picture":
            prompts = list(dict.fromkeys(prompt for _, prompt in keys))
            blind = dict(zip(prompts, self._in_batches(prompts, None), strict=True))
            rewards = [value - blind[prompt] for value, (_, prompt) in zip(rewards, keys, strict=True)]
            metrics["likelihood/gain"] = Mean.over(rewards)
        return RewardOutput(reward_N=torch.tensor(rewards, dtype=torch.float32), metrics=metrics)

    def _in_batches(self, prompts: Sequence[str], images: Sequence[np.ndarray] | None) -> list[float]:
        values: list[float] = []
        for start in range(0, len(prompts), self.batch_size):
            part = slice(start, start + self.batch_size)
            values += self.mean_log_probs(prompts[part], None if images is None else images[part])
        return [value if math.isfinite(value) else math.nan for value in values]
