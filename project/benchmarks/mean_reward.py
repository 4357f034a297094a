"""The mean reward of the prompts of an evaluation: a measure that needs no benchmark's prompts or tools."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from numbers import Real

from lightning.pytorch import LightningModule, Trainer
from torchmetrics import Metric

from project.benchmarks.base import Benchmark, Confidences, Outcome, Results, gather
from project.core import metrics
from project.core.metrics import Mean, merged
from project.rewards.base import Reward
from project.trajectory import Prompt, Trajectory

TAG = "tag/"


class MeanReward(Benchmark):
    """Mean reward, and the judge's mean confidences, on held-out prompts.

    `reward`: its mean over the prompts. If the reward asks questions: `semantic` and `quality`, the mean confidence in
    the questions of that kind, and `tag/TAG`, that in the questions with this tag. Every prompt that has such questions
    weighs the same.

    Args:
        reward: Reward to report; without it, that of the run's reward callbacks.
    """

    def __init__(self, reward: Reward | None = None) -> None:
        super().__init__(MeansByName(), reward)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises ValueError if there is no reward."""
        super().setup(trainer, pl_module, stage)
        if not self._rewards(trainer):
            raise ValueError(
                "MeanReward has no reward to measure: name one under `rewards:`, e.g. project.rewards.DVReward, or "
                "give the benchmark a `reward`"
            )

    def measure(self, trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> list[Outcome]:
        return [
            {
                "set": str(trajectory.prompt.columns.get("set", "all")),
                "kind": str(trajectory.prompt.columns.get("kind", "all")),
                "reward": reward,
                "text": trajectory.reasoning,
            }
            for trajectory, reward in zip(trajectories, rewards, strict=True)
        ]

    def of_answers(self, prompt: Prompt, confidences: Confidences) -> Outcome:
        """Mean confidence by kind and by tag of question; None where none of them was answered."""
        by_name: dict[str, list[float | None]] = defaultdict(list)
        for question, confidence in zip(prompt.questions if confidences else (), confidences, strict=True):
            by_name[question.kind].append(confidence)
            if question.tag:
                by_name[f"{TAG}{question.tag}"].append(confidence)
        means = {name: Mean.over(values) for name, values in by_name.items()}
        return {name: mean.value if mean.count else None for name, mean in means.items()}


class MeansByName(Metric):
    """The mean of every number of the outcomes, over all ranks.

    Which tags there are is not known before, so the sums are no states of fixed size: `compute` gathers them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means: dict[str, metrics.Metric] = {}

    def update(self, outcome: Outcome) -> None:
        """Adds one prompt; what is no number does not count."""
        numbers = {name: Mean.over([float(v)]) for name, v in outcome.items() if isinstance(v, Real)}
        self.means = merged([self.means, numbers])

    def compute(self) -> Results:
        """The figures of `MeanReward`. A collective call."""
        of_ranks = merged(gather([self.means]))
        values = {name: of_ranks[name].value for name in sorted(of_ranks)}
        figures: Results = {name: value for name, value in values.items() if not name.startswith(TAG)}
        tags = {name.removeprefix(TAG): value for name, value in values.items() if name.startswith(TAG)}
        return {**figures, "tag": tags} if tags else figures

    def reset(self) -> None:
        super().reset()
        self.means = {}
