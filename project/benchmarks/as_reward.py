"""A reward aligned with a benchmark: its own verdict, right or wrong, on training pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from project.benchmarks.base import Benchmark, Outcome
from project.core.digest import pixel_key
from project.core.metrics import Mean
from project.core.randomness import keyed_generator
from project.rewards.base import Reward, RewardOutput
from project.trajectory import Prompt, Trajectory


class BenchmarkReward(Reward):
    """1 where the benchmark calls the picture right, else 0; NaN where it could not judge it.

    With a `PublishedBenchmark` this is the reward that most trainers use: GenEval's rules on what a detector finds. Its
    file of items then holds the training prompts too.

    With `flips`, that share of the verdicts is inverted; picture, prompt and seed alone decide which ones. It is
    the noise of a judge that errs on one question a picture (compare project/judges/noisy.py).

    Args:
        benchmark: who decides. It never sees the training prompts as an evaluation: nothing is recorded.
        outcome: name of the outcome that is the reward, e.g. "worth", the share of questions that are answered as they
            should; if None, right or wrong.
        flips: share of wrong verdicts, in [0, 0.5).
        seed: of the flips.
        weight: factor in the sum of rewards; with 0 it is only logged.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        flips: float = 0.0,
        seed: int = 0,
        weight: float = 1.0,
        outcome: str | None = None,
    ) -> None:
        super().__init__(weight=weight)
        if benchmark.right is None:
            raise ValueError(
                f"{type(benchmark).__name__} tells no right pictures from wrong ones (its `right` is None)"
            )
        if not 0 <= flips < 0.5:
            raise ValueError(f"flips={flips}: give a share in [0, 0.5)")
        if flips and outcome is not None:
            raise ValueError(f"flips={flips} turns verdicts round, and {outcome!r} is none: leave one of them out")
        self.benchmark = benchmark
        self.outcome = outcome or benchmark.right
        self.flips = flips
        self.seed = seed

    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        if not trajectories:
            return RewardOutput(reward_N=torch.zeros(0))
        outcomes = self.benchmark.measure(trajectories, [None] * len(trajectories))
        said = [self._value(outcome, sample) for outcome, sample in zip(outcomes, trajectories, strict=True)]
        metrics = {
            "reward/benchmark": Mean.over(value for value in said if not math.isnan(value)),
            "reward/benchmark_not_judged": Mean.over(math.isnan(value) for value in said),
        }
        return RewardOutput(reward_N=torch.tensor(said), metrics=metrics)

    def check(self, prompts: Sequence[Prompt]) -> None:
        self.benchmark.check(prompts)

    def preflight(self) -> None:
        self.benchmark.preflight()

    @property
    def longest_wait(self) -> float:
        return self.benchmark.longest_wait

    def stop_waiting(self) -> None:
        self.benchmark.stop_waiting()

    def _value(self, outcome: Outcome, trajectory: Trajectory) -> float:
        assert self.outcome is not None
        if self.outcome not in outcome:
            raise ValueError(f"outcome={self.outcome!r}: {self.benchmark.name} measures {', '.join(outcome)}")
        value = outcome[self.outcome]
        if value is None:
            return math.nan
        return float(bool(value) != self._flipped(trajectory)) if self.flips else float(value)

    def _flipped(self, trajectory: Trajectory) -> bool:
        picture = pixel_key(trajectory.image.pixels_HWC.numpy())
        generator = keyed_generator(self.seed, "benchmark reward", picture, trajectory.prompt.text)
        return bool(torch.rand((), generator=generator).item() < self.flips)
