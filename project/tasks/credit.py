"""Which reward the text and the picture of a round of refinement are credited with.

Every round turns the picture that a sample looks at into the one that it ends with: drawn anew, or kept as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from project.trajectory import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRewards:
    """Rewards of the pictures of one round; NaN = unjudged."""

    seen_N: Tensor
    """Of the picture that was looked at."""
    reached_N: Tensor
    """Of the picture that the round ended with; NaN where the sample had stopped before. A picture that was kept has
    the reward that it had, exactly."""
    working_N: Tensor
    """bool: samples that had not stopped before."""
    kept_N: Tensor
    """bool: samples that kept their picture."""


def rewards_of(rounds: Sequence[Group]) -> list[RoundRewards]:
    """Those of the scored groups of all rounds, the first one first. Raises ValueError if one is not scored."""
    found: list[RoundRewards] = []
    for group in rounds:
        if group.scores is None:
            raise ValueError("credit needs scores: score the groups first")
        seen_N = found[-1].reached_N if found else group.before_N
        assert seen_N is not None
        kept_N = torch.tensor([t.kept for t in group.trajectories], dtype=torch.bool)
        working_N = torch.tensor([not t.stopped for t in group.trajectories], dtype=torch.bool)
        reached_N = seen_N.where(kept_N, group.scores.reward_N).where(working_N, math.nan)
        found.append(RoundRewards(seen_N=seen_N, reached_N=reached_N, working_N=working_N, kept_N=kept_N))
    return found


Credit = Callable[[Sequence[RoundRewards]], list[tuple[Tensor, Tensor]]]
"""What the rounds reached -> per round (reward [N], reward before [N]); NaN where a sample had stopped."""


def own(rounds: Sequence[RoundRewards]) -> list[tuple[Tensor, Tensor]]:
    """Every round: its own picture's reward, compared with that of the picture it looked at."""
    return [(each.reached_N, each.seen_N) for each in rounds]


def last(rounds: Sequence[RoundRewards]) -> list[tuple[Tensor, Tensor]]:
    """Every round: the reward of the sample's last picture, compared with that of its first."""
    pairs = []
    for number, each in enumerate(rounds):
        reward_N = each.reached_N
        for later in rounds[number + 1 :]:
            reward_N = later.reached_N.where(later.working_N, reward_N)
        pairs.append((reward_N.where(each.working_N, math.nan), rounds[0].seen_N))
    return pairs


CREDITS: dict[str, Credit] = {"own": own, "last": last, "improvement": own}
