"""A reward that knows nothing: the control that every learning curve needs beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from project.core.metrics import Mean
from project.core.randomness import uniform
from project.rewards.base import Reward, RewardOutput
from project.trajectory import Trajectory


class RandomReward(Reward):
    """Uniform numbers in [0, 1), keyed by the sample and its round.

    It shows what training does to a model that learns nothing from its reward.

    Args:
        seed: seed of the rewards, in addition to the run's own seed.
        weight: factor in the sum of rewards; with 0 it is only logged.
    """

    def __init__(self, seed: int = 0, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.seed = seed

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        stream = f"random reward {self.seed}"
        reward_N = torch.cat([uniform([t.key], stream, 1, round=t.round)[:, 0] for t in trajectories])
        mean = Mean(total=reward_N.sum().item(), count=float(len(reward_N)))
        return RewardOutput(reward_N=reward_N, metrics={"reward/random": mean})
