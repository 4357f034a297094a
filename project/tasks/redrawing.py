"""Drawing again with other noise: what refinement is compared with at equal compute. For evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import torch

from project.tasks.base import ChangeGuidance, EvaluationTask, Rollout
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.turn import Turn
from project.trajectory import Group, Trajectory


class Redrawing(EvaluationTask):
    """Draws every prompt `draws` times: the first pictures, then the last or best of 2, 3 ... (`last2`, `best2` ...).

    Args:
        first: how a picture is drawn.
        draws: pictures of every prompt.
        keep: which picture counts: the `best` so far by reward, the `last`, or `both` (in separate groups).
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

    def with_guidance(self, change: ChangeGuidance) -> Redrawing:
        return self._changed(first=self.first.with_guidance(change))

    def rollout(self, rollout: Rollout) -> list[Group]:
        """Raises ValueError in training, for more than one sample a prompt, or for `best` without rewards."""
        if rollout.training or rollout.size != 1:
            raise ValueError("redrawing is for evaluation, with one sample a prompt")
        if self.evaluates_with_scores and rollout.score is None:
            raise ValueError("the best picture is chosen by its reward: name a reward under `rewards:`")
        groups: list[Group] = []
        best: list[Trajectory] = []
        highest_N = torch.full((len(rollout.keys),), math.nan)
        for draw in range(1, self.draws + 1):
            # The first draw is the same as in an evaluation without redrawing.
            again = [dataclasses.replace(key, occurrence=key.occurrence + draw - 1) for key in rollout.keys]
            (group,) = self.first.rollout(dataclasses.replace(rollout, keys=again))
            if draw == 1:
                best = list(group.trajectories)
                groups.append(Group(trajectories=group.trajectories, size=1, metrics=group.metrics))
            if self.keep != "last":
                assert rollout.score is not None
                reward_N = rollout.score.collect(group).reward_N
                better_N = (torch.isnan(highest_N) | (reward_N > highest_N)) & ~torch.isnan(reward_N)
                pairs = zip(group.trajectories, best, better_N.tolist(), strict=True)
                best = [new if better else old for new, old, better in pairs]
                highest_N = reward_N.where(better_N, highest_N)
            if draw > 1 and self.keep != "best":
                groups.append(Group(trajectories=group.trajectories, size=1, task="redraw", label=f"last{draw}"))
            if draw > 1 and self.keep != "last":
                groups.append(Group(trajectories=tuple(best), size=1, task="redraw", label=f"best{draw}"))
        return groups
