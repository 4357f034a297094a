"""`GoldJudge`: a second judge watches during training, and warns when the trained-against one is being fooled.

Reward hacking shows as a train reward that rises while the reward by a judge that nobody trains against does not. The
pure parts are `compare` and `growth`. Shape suffixes: project/trajectory.py; here C comparisons.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from project.core.randomness import keyed_generator
from project.judges.base import Judge, JudgeUnavailable
from project.rewards.dvreward import AGGREGATIONS, DVReward, group_rewards
from project.trajectory import Group

log = logging.getLogger(__name__)

SURE = 3.0
"""Standard errors that the growth of the gap must exceed."""


class GoldJudge(Callback):
    """Asks another judge about a sample of the update's trajectories and compares.

    Both judges' confidences are aggregated alike, so that other rewards, their weights and rectification stay out of
    it; where training asked no judge, its reward itself is compared. Logs `gold/reward` and `gold/train_reward`
    (means over the sample), `gold/gap` (train minus gold), `gold/correlation` over the samples,
    `gold/correlation_in_group` after each group's mean is taken away (what advantages are made of) and
    `gold/unanswered`. It warns once, when the gap has grown since the start by more than `threshold` and by more than
    chance explains. Rank 0 alone asks, about its own trajectories; where the gold judge does not answer, the comparison
    is left out and training goes on.

    Args:
        judge: who answers; best one that is dearer than the judge that is trained against, or another model.
        every_n_updates: updates between two comparisons.
        samples: at least so many trajectories are compared, in groups drawn at random (all, if there are fewer).
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
        samples: int = 32,
        aggregation: Literal["geometric", "mean", "all"] = "geometric",
        use_dependencies: bool = False,
        threshold: float = 0.1,
        window: int = 5,
    ) -> None:
        if min(every_n_updates, samples, window) < 1 or threshold <= 0:
            raise ValueError(
                f"GoldJudge: {every_n_updates=}, {samples=}, {window=}, {threshold=}: give at least 1, and a positive "
                "threshold"
            )
        self.reward = DVReward(judge, aggregation=aggregation, use_dependencies=use_dependencies)
        self.aggregate = AGGREGATIONS[aggregation]
        self.every_n_updates = every_n_updates
        self.samples = samples
        self.threshold = threshold
        self.window = window
        self.first_gaps: list[list[float]] = []
        """Per comparison the gap of each group: the first `window` comparisons."""
        self.last_gaps: list[list[float]] = []
        """The last `window` comparisons after those."""
        self.warned = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises ValueError if the judge cannot answer, or the prompts have no questions."""
        prompts = getattr(trainer.datamodule, "prompts", {}).get("train", ())  # type: ignore[attr-defined]
        self.reward.check(prompts)
        if trainer.is_global_zero:
            self.reward.preflight()

    @property
    def longest_wait(self) -> float:
        """How long the judge may be waited for [s]. See `Reward.longest_wait`."""
        return self.reward.longest_wait

    def stop_waiting(self) -> None:
        """The run is to end: do not wait for a judge that is away. See `Reward.stop_waiting`."""
        self.reward.stop_waiting()

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        updates = int(getattr(pl_module, "updates", 0))
        group = outputs.get("group") if isinstance(outputs, Mapping) else None
        if updates % self.every_n_updates or not isinstance(group, Group) or group.scores is None:
            return
        parts = chosen_parts(group.parts, self.samples, updates)
        places = [n for part in parts for n in part]
        try:
            gold = self.reward.score([group.trajectories[n] for n in places])
        except JudgeUnavailable as error:
            # It only watches: training does not need it.
            log.warning("update %d is not compared, the gold judge is away: %s", updates, error)
            return
        assert gold.confidence_NQ is not None
        asked = dict(zip(places, gold.confidence_NQ, strict=True))
        train_N = group.scores.reward_N[places]
        if group.scores.confidence_NQ:
            train_N = self._aggregated(dict(enumerate(group.scores.confidence_NQ)), group, parts)
        found = compare(train_N, self._aggregated(asked, group, parts), [len(part) for part in parts])
        figures = {"unanswered": gold.metrics["judge/unanswered"].value, **found.figures}
        logged = {f"gold/{name}": value for name, value in figures.items() if not math.isnan(value)}
        # Not by `log_dict`, which would repeat them at every update until the next comparison.
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=updates)
        if found.gaps:
            self._watch(list(found.gaps), updates)

    def _aggregated(
        self, confidences: Mapping[int, Sequence[float | None]], group: Group, parts: Sequence[range]
    ) -> Tensor:
        """What confidences, by place, come to within each part of a group."""
        return torch.cat(
            [
                group_rewards(
                    [confidences[n] for n in part],
                    group.trajectories[part.start].prompt.questions,
                    aggregate=self.aggregate,
                    use_dependencies=self.reward.use_dependencies,
                )
                for part in parts
            ]
        )

    def _watch(self, gaps: list[float], updates: int) -> None:
        if len(self.first_gaps) < self.window:
            self.first_gaps.append(gaps)
            return
        self.last_gaps = [*self.last_gaps, gaps][-self.window :]
        if len(self.last_gaps) < self.window or self.warned:
            return
        grown, error = growth(self.first_gaps, self.last_gaps)
        if grown > self.threshold and grown > SURE * error:
            self.warned = True
            log.warning(
                "reward hacking? At update %d the train reward has grown by %.3f (+- %.3f) over that of the gold judge "
                "%s since the start: look at the rollout panel, and audit the judge (python -m project audit)",
                updates,
                grown,
                error,
                self.reward.judge.name,
            )

    @property
    def state_key(self) -> str:
        return self._generate_state_key(judge=self.reward.judge.name)

    def state_dict(self) -> dict[str, Any]:
        return {"first_gaps": self.first_gaps, "last_gaps": self.last_gaps, "warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first_gaps = state_dict["first_gaps"]
        self.last_gaps = state_dict["last_gaps"]
        self.warned = state_dict["warned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Train and gold reward of the samples that have both; NaN where that is undefined (no sample, no spread)."""

    reward: float
    """Mean by the gold judge."""
    train_reward: float
    correlation: float
    correlation_in_group: float
    gaps: tuple[float, ...]
    """Mean train minus mean gold reward of each group that has such samples."""

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


def compare(train_N: Tensor, gold_N: Tensor, sizes: Sequence[int]) -> Comparison:
    """Means and correlations of two rewards of the same samples, group by group of these sizes; NaN = not scored."""
    both_N = ~(train_N.isnan() | gold_N.isnan()).cpu()
    train_N, gold_N = (r.double().cpu().where(both_N, math.nan) for r in (train_N, gold_N))
    centred = [torch.cat([part - part.nanmean() for part in r.split(list(sizes))])[both_N] for r in (train_N, gold_N)]
    gaps = [gap for part in (train_N - gold_N).split(list(sizes)) if not math.isnan(gap := part.nanmean().item())]
    train, gold = train_N[both_N], gold_N[both_N]
    return Comparison(
        reward=gold.mean().item(),
        train_reward=train.mean().item(),
        correlation=correlation(train, gold),
        correlation_in_group=correlation(*centred),
        gaps=tuple(gaps),
    )


def growth(first: Sequence[Sequence[float]], last: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean gap per group of the `last` comparisons minus that of the `first`, and its standard error.

    Groups are what is independent: the samples of one share a prompt. A single group tells no error: infinite.
    """
    before, now = ([gap for gaps in comparisons for gap in gaps] for comparisons in (first, last))
    if min(len(before), len(now)) < 2:
        return fmean(now) - fmean(before), math.inf
    return fmean(now) - fmean(before), math.sqrt(variance(before) / len(before) + variance(now) / len(now))


def correlation(x_N: Tensor, y_N: Tensor) -> float:
    """Pearson's; NaN without spread in both."""
    if len(x_N) < 2:
        return math.nan
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    # Sums of equal numbers are equal up to rounding only.
    spread = (x_N.square().sum() * y_N.square().sum()).sqrt().item()
    return (x_N * y_N).sum().item() / spread if spread > 1e-12 else math.nan


def chosen_parts(parts: Sequence[range], samples: int, updates: int) -> list[range]:
    """Groups to compare, drawn by the update, in order: the first ones drawn that have so many samples together."""
    drawn = torch.randperm(len(parts), generator=keyed_generator("gold judge", updates)).tolist()
    chosen: list[int] = []
    for place in drawn:
        if sum(len(parts[other]) for other in chosen) >= samples:
            break
        chosen.append(place)
    return [parts[place] for place in sorted(chosen)]
