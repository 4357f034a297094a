"""A reward aligned with a benchmark: its own verdict, right or wrong, on training pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from project.benchmarks.base import Benchmark
from project.core.digest import pixel_key
from project.core.metrics import Mean
from project.core.randomness import keyed_generator
from project.rewards.base import Reward, RewardOutput
from project.trajectory import Trajectory


class BenchmarkReward(Reward):
    """1 where the benchmark calls the picture right, else 0.

    With `flips`, that share of the verdicts is turned round; which ones hangs on picture, prompt and seed alone. It is
    the noise of a judge that errs on one question a picture (compare project/judges/noisy.py).

    Args:
        benchmark: who decides. It never sees the training prompts as an evaluation: nothing is recorded.
        flips: share of wrong verdicts, in [0, 0.5).
        seed: of the flips.
        weight: factor in the sum of rewards; with 0 it is only logged.
    """

    def __init__(self, benchmark: Benchmark, flips: float = 0.0, seed: int = 0, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if benchmark.right is None:
            raise ValueError(
                f"{type(benchmark).__name__} tells no right pictures from wrong ones (its `right` is None)"
            )
        if not 0 <= flips < 0.5:
            raise ValueError(f"flips={flips}: give a share in [0, 0.5)")
        self.benchmark = benchmark
        self.right = benchmark.right
        self.flips = flips
        self.seed = seed

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        if not trajectories:
            return RewardOutput(reward_N=torch.zeros(0))
        outcomes = self.benchmark.measure(trajectories, [None] * len(trajectories))
        verdicts = [
            float(bool(outcome[self.right]) != self._flipped(trajectory))
            for outcome, trajectory in zip(outcomes, trajectories, strict=True)
        ]
        reward_N = torch.tensor(verdicts)
        return RewardOutput(reward_N=reward_N, metrics={"reward/benchmark": Mean.over(verdicts)})

    def _flipped(self, trajectory: Trajectory) -> bool:
        picture = pixel_key(trajectory.image.pixels_HWC.numpy())
        generator = keyed_generator(self.seed, "benchmark reward", picture, trajectory.prompt.text)
        return bool(torch.rand((), generator=generator).item() < self.flips)
