"""Drawing again with other noise: what refinement is compared with at equal compute. For evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import torch

from project.models.base import UnifiedModel
from project.samplers.base import Sampler
from project.scoring import Score, collected
from project.tasks.base import Task
from project.tasks.reasoning_t2i import ReasoningT2I
from project.timing import Stopwatch
from project.trajectory import Group, Prompt, Replay, SampleKey, Trajectory


class Redrawing(Task):
    """Draws every prompt `draws` times; group k holds what k + 1 draws arrive at.

    Args:
        first: how a picture is drawn.
        draws: of every prompt.
        keep: the `best` by reward so far, or simply the `last`.
    """

    def __init__(self, first: ReasoningT2I, draws: int = 2, keep: Literal["best", "last"] = "best") -> None:
        if draws < 1 or keep not in ("best", "last"):
            raise ValueError(f"draws={draws}, keep={keep!r}: give at least 1, and best or last")
        self.first = first
        self.draws = draws
        self.keep = keep

    @property
    def evaluates_with_scores(self) -> bool:
        return self.keep == "best"

    def rollout(
        self,
        model: UnifiedModel,
        prompts: Sequence[Prompt],
        keys: Sequence[SampleKey],
        sampler: Sampler,
        window: range,
        stopwatch: Stopwatch,
        score: Score | None = None,
    ) -> list[Group]:
        """Raises ValueError for trained steps, more than one sample a prompt, or `best` without rewards."""
        if len(window) or len(keys) != len(prompts):
            raise ValueError("redrawing is for evaluation: no trained steps, one sample a prompt")
        if self.keep == "best" and score is None:
            raise ValueError("the best picture is chosen by its reward: name a reward under `rewards:`")
        groups: list[Group] = []
        kept: list[Trajectory] = []
        best = torch.full((len(keys),), math.nan)
        for draw in range(self.draws):
            # The first draw is the very one that is evaluated without redrawing.
            again = [dataclasses.replace(key, occurrence=key.occurrence + draw) for key in keys]
            (group,) = self.first.rollout(model, prompts, again, sampler, window, stopwatch, score)
            if self.keep == "last" or draw == 0:
                kept = list(group.trajectories)
            if self.keep == "best":
                reward_N = collected(group.pending, stopwatch).reward_N
                better = (torch.isnan(best) | (reward_N > best)) & ~torch.isnan(reward_N)
                kept = [
                    new if b else old for new, old, b in zip(group.trajectories, kept, better.tolist(), strict=True)
                ]
                best = reward_N.where(better, best)
            groups.append(Group(trajectories=tuple(kept), size=1, task="redraw", metrics=group.metrics))
        return groups

    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        return self.first.replay(model, trajectories, sampler, context_gradient=context_gradient)
