"""Rectification: a refined picture that is no better than the one before it must not get a positive advantage.

Without it, the best of several failed refinements would look good beside the others of its group. Its reward is lowered
to a value below that of every real improvement (AlphaGRPO, arXiv 2605.12495).

A picture that was kept is no better than before either. Whether that was right depends on the picture: see `Stops`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from project.core.metrics import Mean, Metric, Sum

Floor = Literal["before", "refined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedStop:
    """A reflection that finds nothing wrong keeps the picture in training too, and is rewarded if that was right.

    Attributes:
        right_from: reward from which on a picture counts as right.
        bonus: added to the reward of a right picture that was kept. Without one it earns no more than a redrawing that
            failed.

    Raises:
        ValueError: if the bonus is negative.
    """

    right_from: float
    bonus: float = 0.0

    def __post_init__(self) -> None:
        if not self.bonus >= 0:
            raise ValueError(f"bonus={self.bonus}: a stop that is right may not cost anything, give 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """Which samples kept the picture that they looked at, and which of these pictures are right.

    A right picture that was kept is no false positive. A wrong one that was kept always is.
    """

    kept_N: Tensor
    right_N: Tensor
    bonus: float

    def metrics(self, known_N: Tensor) -> dict[str, Metric]:
        """Share of samples that stopped (`stops`), of the stops that were right (`true_stops`), and of the right
        pictures that were kept (`right_kept`), among the samples with rewards."""
        return {
            "stops": Mean.over(self.kept_N[known_N].tolist()),
            "true_stops": Mean.over(self.right_N[known_N & self.kept_N].tolist()),
            "right_kept": Mean.over(self.kept_N[known_N & self.right_N].tolist()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectified:
    """Rewards from which advantages are computed."""

    reward_N: Tensor
    """fp32; NaN where the sample, or the picture before it, has no reward, and everywhere where nothing improved."""
    false_positive_N: Tensor
    """Bool: judged and no better than before, or a wrong picture that was kept."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Mean `raw_reward`, share of `false_positives`, share of the positive advantage (before scaling)
    that encourages them (`misled`), mean `gain`, number `unjudged`, whether the terms are `skipped`; those of stops.
    Raw rewards and gains are without bonus."""


def rectify(
    reward_N: Tensor,
    before_N: Tensor,
    group_size: int,
    *,
    floor: Floor | None = "before",
    relative: bool = False,
    stops: Stops | None = None,
) -> Rectified:
    """`r <= r_before` -> the floor of the group; a right picture that was kept -> its reward and the bonus.

    Args:
        reward_N: rewards of all refined pictures of the update, group by group; NaN = unjudged.
        before_N: rewards of the pictures that they refine.
        group_size: G.
        floor: `before`, as published: the lowest reward before refinement in the group (where all samples refine one
            picture that makes max(r, r_before)); `refined`: the lowest refined reward of the group. None = rewards
            stay, only what is unjudged is dropped.
        relative: reward the difference, r - r_before, instead of r. Where the samples of a group refine pictures of
            their own, these differ; then `before` floors at 0 and `refined` at the lowest difference of the group.
        stops: the pictures that were kept; None = all were drawn.

    Raises:
        ValueError: if the lengths differ, are no whole groups, or the floor is unknown.
    """
    if reward_N.shape != before_N.shape or reward_N.ndim != 1 or len(reward_N) % group_size:
        raise ValueError(
            f"rewards {tuple(reward_N.shape)} after and {tuple(before_N.shape)} before refinement are not whole groups "
            f"of {group_size}"
        )
    if floor not in (None, "before", "refined"):
        raise ValueError(f"floor={floor!r} is unknown: choose before, refined or null")
    known_N = ~torch.isnan(reward_N) & ~torch.isnan(before_N)
    false_N = known_N & (reward_N <= before_N)
    rewarded_N, bar_N = (reward_N - before_N, torch.zeros_like(before_N)) if relative else (reward_N, before_N)
    if stops is not None:
        rewarded_N = rewarded_N + stops.bonus * (stops.kept_N & stops.right_N)
        false_N = known_N & (~stops.right_N).where(stops.kept_N, false_N)
    rectified_N = rewarded_N.where(known_N, math.nan)
    if floor is not None:
        lowest = _lowest(bar_N if floor == "before" else rewarded_N, known_N, group_size)
        rectified_N = rectified_N.where(~false_N, lowest)
    encouraged_N = _above_mean(rectified_N, group_size)
    skipped = floor is not None and torch.equal(known_N, false_N)
    if skipped:
        rectified_N = torch.full_like(reward_N, math.nan)
    return Rectified(
        reward_N=rectified_N,
        false_positive_N=false_N,
        metrics={
            "raw_reward": Mean.over(reward_N[known_N].tolist()),
            "false_positives": Mean.over(false_N[known_N].tolist()),
            "misled": Mean(total=encouraged_N[false_N].sum().item(), count=encouraged_N.sum().item() or 1.0),
            "gain": Mean.over((reward_N - before_N)[known_N].tolist()),
            "unjudged": Sum(value=float((~known_N).sum())),
            "skipped": Mean.over([skipped]),
            **({} if stops is None else stops.metrics(known_N)),
        },
    )


def _above_mean(value_N: Tensor, group_size: int) -> Tensor:
    """By how much each sample is above the mean of its group [N]; 0 below it and where it has no reward."""
    value_PG = value_N.reshape(-1, group_size)
    return (value_PG - value_PG.nanmean(1, keepdim=True)).nan_to_num(0.0).clamp_min(0.0).reshape(-1)


def _lowest(value_N: Tensor, known_N: Tensor, group_size: int) -> Tensor:
    """Per sample the lowest known value of its group [N]; infinite where there is none."""
    known_PG = value_N.where(known_N, math.inf).reshape(-1, group_size)
    return known_PG.amin(1, keepdim=True).expand_as(known_PG).reshape(-1)
