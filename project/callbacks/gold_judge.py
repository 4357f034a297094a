"""`GoldJudge`: a second judge watches during training, and warns when the trained-against one is being fooled.

Reward hacking shows as a train reward that rises while the reward by a judge that nobody trains against does not. The
pure part is `compare`. Shape suffixes: project/trajectory.py.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from project.judges.base import Judge
from project.randomness import keyed_generator
from project.rewards.dvreward import DVReward
from project.trajectory import Group

log = logging.getLogger(__name__)


class GoldJudge(Callback):
    """Scores a sample of the update's trajectories by another judge, as `DVReward` does, and compares.

    Logs `gold/reward` and `gold/train_reward` (means over the sample), `gold/gap` (train minus gold),
    `gold/correlation` over the samples, `gold/correlation_in_group` after each group's mean is taken away (what
    advantages are made of) and `gold/unanswered`. It warns once, when the gap has grown by more than `threshold`
    since the start of training. Rank 0 alone asks, about its own trajectories.

    Args:
        judge: who answers; better one that is dearer than the judge that is trained against, or another model.
        every_n_updates: updates between two comparisons.
        samples: at least so many trajectories are compared, in whole groups drawn at random (all, if there are fewer).
        aggregation: of confidences, see `project.rewards.dvreward.DVReward`.
        use_dependencies: a question counts as no if one that it depends on was answered no.
        threshold: growth of the gap that is worth a warning.
        window: the gap at the start, and the gap now, are means over this many comparisons.

    Raises:
        ValueError: for numbers below 1, a threshold that is not positive, or an unknown aggregation.
    """

    def __init__(
        self,
        judge: Judge,
        every_n_updates: int = 10,
        samples: int = 16,
        aggregation: Literal["geometric", "mean", "all"] = "geometric",
        use_dependencies: bool = False,
        threshold: float = 0.1,
        window: int = 3,
    ) -> None:
        if min(every_n_updates, samples, window) < 1 or threshold <= 0:
            raise ValueError(
                f"GoldJudge: {every_n_updates=}, {samples=}, {window=}, {threshold=}: give at least 1, and a positive "
                "threshold"
            )
        self.reward = DVReward(judge, aggregation=aggregation, use_dependencies=use_dependencies)
        self.every_n_updates = every_n_updates
        self.samples = samples
        self.threshold = threshold
        self.window = window
        self.first_gaps: list[float] = []
        """Of the first comparisons, at most `window`."""
        self.last_gaps: list[float] = []
        """Of the comparisons after them, the last `window`."""
        self.warned = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises ValueError if the judge cannot answer, or the prompts have no questions."""
        prompts = getattr(trainer.datamodule, "prompts", {}).get("train", ())  # type: ignore[attr-defined]
        self.reward.check(prompts)
        if trainer.is_global_zero:
            self.reward.preflight()

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        updates = int(getattr(pl_module, "updates", 0))
        group = outputs.get("group") if isinstance(outputs, Mapping) else None
        if updates % self.every_n_updates or not isinstance(group, Group) or group.scores is None:
            return
        chosen = chosen_samples(len(group), group.size, self.samples, updates)
        gold = self.reward.score([group.trajectories[n] for n in chosen], group.size)
        found = compare(group.scores.reward_N[chosen], gold.reward_N, group.size)
        figures = {"unanswered": gold.metrics["judge/unanswered"], **found.figures}
        logged = {f"gold/{name}": value for name, value in figures.items() if not math.isnan(value)}
        # Not by `log_dict`, which would repeat them at every update until the next comparison.
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=updates)
        if not math.isnan(found.gap):
            self._watch(found.gap, updates)

    def _watch(self, gap: float, updates: int) -> None:
        if len(self.first_gaps) < self.window:
            self.first_gaps.append(gap)
            return
        self.last_gaps = [*self.last_gaps, gap][-self.window :]
        before, now = fmean(self.first_gaps), fmean(self.last_gaps)
        if len(self.last_gaps) == self.window and now - before > self.threshold and not self.warned:
            self.warned = True
            log.warning(
                "reward hacking? At update %d the train reward exceeds that of the gold judge %s by %.3f, at the start "
                "by %.3f: look at the rollout panel, and audit the judge (python -m project audit)",
                updates,
                self.reward.judge.name,
                now,
                before,
            )

    @property
    def state_key(self) -> str:
        return self._generate_state_key(judge=self.reward.judge.name)

    def state_dict(self) -> dict[str, Any]:
        return {"first_gaps": self.first_gaps, "last_gaps": self.last_gaps, "warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first_gaps = list(state_dict["first_gaps"])
        self.last_gaps = list(state_dict["last_gaps"])
        self.warned = state_dict["warned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Train and gold reward of the samples that have both; NaN where that is undefined (no sample, no spread)."""

    reward: float
    """Mean by the gold judge."""
    train_reward: float
    correlation: float
    correlation_in_group: float

    @property
    def gap(self) -> float:
        """Mean train reward minus mean gold reward."""
        return self.train_reward - self.reward

    @property
    def figures(self) -> dict[str, float]:
        """What is logged, by name."""
        return {
            "reward": self.reward,
            "train_reward": self.train_reward,
            "gap": self.gap,
            "correlation": self.correlation,
            "correlation_in_group": self.correlation_in_group,
        }


def compare(train_N: Tensor, gold_N: Tensor, size: int) -> Comparison:
    """Means and correlations of two rewards of the same samples, group by group of `size`; NaN = not scored."""
    both_N = ~(train_N.isnan() | gold_N.isnan())
    train_PG, gold_PG = (r.double().where(both_N, math.nan).reshape(-1, size) for r in (train_N.cpu(), gold_N.cpu()))
    centred = [(r - r.nanmean(1, keepdim=True)).flatten()[both_N] for r in (train_PG, gold_PG)]
    train, gold = train_PG.flatten()[both_N], gold_PG.flatten()[both_N]
    return Comparison(
        reward=gold.mean().item(),
        train_reward=train.mean().item(),
        correlation=correlation(train, gold),
        correlation_in_group=correlation(*centred),
    )


def correlation(x_N: Tensor, y_N: Tensor) -> float:
    """Pearson's; NaN without spread in both."""
    if len(x_N) < 2:
        return math.nan
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    # Sums of equal numbers are equal up to rounding only.
    spread = (x_N.square().sum() * y_N.square().sum()).sqrt().item()
    return (x_N * y_N).sum().item() / spread if spread > 1e-12 else math.nan


def chosen_samples(number: int, size: int, samples: int, updates: int) -> list[int]:
    """Places of the trajectories to compare: whole groups of `size`, drawn by the update, in order."""
    groups = number // size
    drawn = torch.randperm(groups, generator=keyed_generator("gold judge", updates)).tolist()
    return [g * size + n for g in sorted(drawn[: math.ceil(samples / size)]) for n in range(size)]
