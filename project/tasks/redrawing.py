"""Drawing again with other noise: what refinement is compared with at equal compute. For evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import torch

from project.core.timing import Stopwatch
from project.models.base import UnifiedModel
from project.rewards.scoring import Score, collected
from project.samplers.base import Sampler
from project.tasks.base import Task
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.turn import Turn
from project.trajectory import Group, Prompt, Replay, SampleKey, Trajectory


class Redrawing(Task):
    """Draws every prompt `draws` times: the first pictures, then what 2, 3 ... draws arrive at (`last2`, `best2` ...).

    Args:
        first: how a picture is drawn.
        draws: of every prompt.
        keep: the `best` by reward so far, simply the `last`, or `both` (groups of their own).
    """

    def __init__(self, first: ReasoningT2I, draws: int = 2, keep: Literal["best", "last", "both"] = "best") -> None:
        if draws < 1 or keep not in ("best", "last", "both"):
            raise ValueError(f"draws={draws}, keep={keep!r}: give at least 1, and best, last or both")
        self.first = first
        self.draws = draws
        self.keep = keep

    @property
    def turns(self) -> Sequence[Turn]:
        return self.first.turns

    @property
    def evaluates_with_scores(self) -> bool:
        return self.keep != "last"

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
        if self.evaluates_with_scores and score is None:
            raise ValueError("the best picture is chosen by its reward: name a reward under `rewards:`")
        groups: list[Group] = []
        best: list[Trajectory] = []
        highest_N = torch.full((len(keys),), math.nan)
        for draw in range(1, self.draws + 1):
            # The first draw is the very one that is evaluated without redrawing.
            again = [dataclasses.replace(key, occurrence=key.occurrence + draw - 1) for key in keys]
            (group,) = self.first.rollout(model, prompts, again, sampler, window, stopwatch, score)
            if draw == 1:
                best = list(group.trajectories)
                groups.append(Group(trajectories=group.trajectories, size=1, metrics=group.metrics))
            if self.keep != "last":
                reward_N = collected(group.pending, stopwatch).reward_N
                better_N = (torch.isnan(highest_N) | (reward_N > highest_N)) & ~torch.isnan(reward_N)
                pairs = zip(group.trajectories, best, better_N.tolist(), strict=True)
                best = [new if better else old for new, old, better in pairs]
                highest_N = reward_N.where(better_N, highest_N)
            if draw > 1 and self.keep != "best":
                groups.append(Group(trajectories=group.trajectories, size=1, task="redraw", label=f"last{draw}"))
            if draw > 1 and self.keep != "last":
                groups.append(Group(trajectories=tuple(best), size=1, task="redraw", label=f"best{draw}"))
        return groups

    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        return self.first.replay(model, trajectories, sampler, context_gradient=context_gradient)
