"""`Benchmark`: a callback that measures what validation and test generate."""

from __future__ import annotations

import copy
import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics import Metric

from project.core.atomic_files import write_atomically
from project.core.run_folder import run_folder
from project.datamodule import evaluated_prompts
from project.rewards.base import Reward, score
from project.samplers.guidance import Guidance
from project.trajectory import Group, Prompt, Trajectory

log = logging.getLogger(__name__)

Results = dict[str, Any]
"""Figure -> number, or a dict of such."""
Outcome = dict[str, Any]
"""What was measured on one prompt: JSON values."""
Confidences = Sequence[float | None]


class Benchmark(Callback, ABC):
    """Measures every prompt of an evaluation and turns the outcomes into figures.

    A benchmark says what trajectories are worth (`measure`) and holds the torchmetrics `metric` whose
    `update(outcome)` takes each outcome and whose `compute()` gives the figures, synchronised over ranks. The
    outputs of the module's `validation_step` and `test_step` are a `Group` with one trajectory a prompt (alone, or
    under the key "group").

    Where a task refines or redraws (several groups under the key "groups"), all of them are measured: the first
    pictures as ever, the others' figures under `rounds/LABEL`. Where `right` names the outcome that tells a right
    picture from a wrong one, `rounds/LABEL/oracle` holds what it would be worth to go on with the wrong ones alone: an
    oracle, since nobody but the benchmark knows which those are.

    All prompts of an evaluation are measured, except those that the data module gives to another benchmark by name.

    The figures are kept in `latest`, logged as `NAME/...` at step `module.updates` (also in the
    evaluation before training, where `self.log` does nothing; with `reward_unanswered`, the share of the prompts
    without a reward, if there are any), and every outcome goes into the run folder as
    `evaluations/NAME_UPDATE.jsonl`, for paired comparisons; numbers of the other groups there as `OUTCOME@LABEL`.

    Args:
        metric: What turns outcomes into figures.
        reward: Reward that the outcomes carry; without it, that of the run's reward callbacks.
    """

    latest: Results | None = None
    """The figures of the last evaluation."""
    right: str | None = None
    """Name of the outcome that is true for a right picture."""
    of_pictures: bool = True
    """Whether it measures drawn pictures by the run's rewards. They are not asked about anything else."""
    change_guidance: Callable[[Guidance], Guidance] | None = None
    """The guidance of its own prompts, made from that of the evaluation's task; None = it stays as it is."""
    source: Callable[[Prompt], np.ndarray] | None = None
    """The picture that a prompt of its own edits, uint8 [height, width, 3]; None = its prompts edit nothing."""

    def __init__(self, metric: Metric, reward: Reward | None = None) -> None:
        self.metric = metric
        self.reward = reward
        self._folder: Path | None = None
        self._outcomes: dict[str | None, list[Outcome]]
        self.reset()

    @property
    def name(self) -> str:
        """Prefix of the logged figures: the class name without "Benchmark", in lower case."""
        return type(self).__name__.removesuffix("Benchmark").lower()

    @abstractmethod
    def measure(self, trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> list[Outcome]:
        """Outcome of each trajectory: JSON values by name. A reward is None where nothing scored the trajectory."""

    def update(self, group: Group, rewards: Sequence[Reward] = ()) -> None:
        """Adds the outcomes of a batch; prompts that only fill up a batch are left out."""
        kept = [n for n, t in enumerate(group.trajectories) if not t.prompt.padding]
        trajectories = [group.trajectories[n] for n in kept]
        outcomes = self._outcomes.setdefault(group.label, [])
        if not trajectories:
            return
        reward_N = torch.full((len(trajectories),), torch.nan)
        confidence_NQ: Sequence[Confidences] = ()
        if group.scores is not None:
            reward_N = group.scores.reward_N[kept]
            confidence_NQ = [group.scores.confidence_NQ[n] for n in kept if group.scores.confidence_NQ]
        elif rewards:
            scores = score(trajectories, rewards)
            reward_N, confidence_NQ = scores.reward_N, scores.confidence_NQ
        values = [None if math.isnan(value) else value for value in reward_N.tolist()]
        measured = self.measure(trajectories, values)
        answered = confidence_NQ or [()] * len(trajectories)
        for trajectory, outcome, confidences in zip(trajectories, measured, answered, strict=True):
            outcomes.append({"id": trajectory.prompt.id, **outcome, **self.of_answers(trajectory.prompt, confidences)})

    def of_answers(self, prompt: Prompt, confidences: Confidences) -> Outcome:
        """Further outcomes, from the confidences in the prompt's questions; there are none by default.

        Args:
            confidences: one for each question of the prompt, None where it was not answered; empty if no reward asks
                questions.
        """
        return {}

    def prompts(self, trainer: Trainer) -> list[Prompt]:
        """Those that it measures in evaluations during training."""
        return [p for p in evaluated_prompts(trainer) if self._measures(p)]

    def _measures(self, prompt: Prompt) -> bool:
        return prompt.benchmark in (None, self.name)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError, before any work, for prompts that it cannot measure."""
        return None

    def preflight(self) -> None:
        """Raises, before any work, if what it measures with (a reward, a judge) does not work."""
        if self.reward is not None:
            self.reward.preflight()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks a reward of its own as those of training are. Raises what it raises."""
        if self.reward is not None and (prompts := self.prompts(trainer)):
            self.reward.check(prompts)
            self.preflight()

    @property
    def longest_wait(self) -> float:
        """How long a judge of its own may be waited for [s]. See `Reward.longest_wait`."""
        return 0.0 if self.reward is None else self.reward.longest_wait

    def stop_waiting(self) -> None:
        """The run is to end: do not wait for a judge of its own that is away. See `Reward.stop_waiting`."""
        if self.reward is not None:
            self.reward.stop_waiting()

    def reset(self) -> None:
        """Forget what was measured."""
        self._outcomes = {None: []}

    def figures(self) -> Results:
        """What was measured since the evaluation began, over all ranks."""
        first, *_ = self._outcomes.values()
        figures = self._computed(first)
        rounds = {}
        for label, outcomes in list(self._outcomes.items())[1:]:
            rounds[str(label)] = self._computed(outcomes)
            if self.right is not None:
                chosen = [a if a[self.right] else b for a, b in zip(first, outcomes, strict=True)]
                rounds[str(label)]["oracle"] = self._computed(chosen)
        return {**figures, "rounds": rounds} if rounds else figures

    def _rows(self) -> list[Outcome]:
        """A row per prompt: the outcomes of its first picture, and the numbers among those of the others."""
        first, *_ = self._outcomes.values()
        rows = [dict(outcome) for outcome in first]
        for label, outcomes in list(self._outcomes.items())[1:]:
            for row, outcome in zip(rows, outcomes, strict=True):
                row |= {f"{k}@{label}": v for k, v in outcome.items() if isinstance(v, int | float) or v is None}
        return rows

    def _computed(self, outcomes: Sequence[Outcome]) -> Results:
        metric = copy.deepcopy(self.metric)
        metric.reset()
        for outcome in outcomes:
            metric.update(outcome)
        figures: Results = metric.compute()
        return figures

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises ValueError for two benchmarks of one name."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if sum(isinstance(c, Benchmark) and c.name == self.name for c in callbacks) > 1:
            raise ValueError(
                f"two benchmarks of this run are called {self.name!r}, and prompts, figures and folders go by that "
                "name: give one of them another (`name` of a PublishedBenchmark), or leave one out"
            )
        self._folder = run_folder(trainer) / "evaluations"

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.reset()
        self.metric.to(pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not batch or not all(self._measures(prompt) for prompt in batch):
            return
        groups = groups_of(outputs)
        if not groups:
            raise ValueError(
                f"{type(self).__name__} measures a Group, but the module's step returned {type(outputs).__name__}: "
                'return the rollout, or {"group": rollout}'
            )
        for group in groups:
            self.update(group, self._rewards(trainer))

    def _rewards(self, trainer: Trainer) -> list[Reward]:
        """What scores the pictures: its own reward, or those of the run."""
        if not self.of_pictures:
            return []
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        return [self.reward] if self.reward else [c for c in callbacks if isinstance(c, Reward)]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.latest = self.figures()
        outcomes = gather(self._rows())
        # Means are taken of what was answered: that some was not must stand beside them.
        lost = sum(outcome.get("reward", 0.0) is None for outcome in outcomes)
        if lost and self._rewards(trainer):
            self.latest["reward_unanswered"] = lost / len(outcomes)
            if trainer.is_global_zero:
                log.warning(
                    "%s: %d of %d prompts have no reward, and `reward` is the mean of the others: look at the judge",
                    self.name, lost, len(outcomes),
                )  # fmt: skip
        self._log(trainer, pl_module, self.latest)
        if trainer.is_global_zero and self._folder is not None:
            rows = (json.dumps(outcome) + "\n" for outcome in sorted(outcomes, key=lambda o: str(o["id"])))
            write_atomically(self._folder / f"{self.name}_{updates_of(pl_module)}.jsonl", "".join(rows))

    def _log(self, trainer: Trainer, pl_module: LightningModule, figures: Results) -> None:
        """Logs the figures; also in the evaluation before training, where `self.log` does nothing."""
        scalars = flatten(figures, self.name)
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=updates_of(pl_module))
            logger.save()
        if not trainer.sanity_checking:
            pl_module.log_dict(scalars, logger=False, batch_size=1, sync_dist=True)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def updates_of(module: LightningModule) -> int:
    """Finished updates of a training; 0 of a module that counts none."""
    return int(getattr(module, "updates", 0))


def groups_of(outputs: Any) -> list[Group]:
    """The groups of a step's output, in order; none if it holds something else."""
    found: Sequence[Any] = [outputs]
    if isinstance(outputs, Mapping):
        found = outputs.get("groups") or [outputs.get("group")]
    return [group for group in found if isinstance(group, Group)]


def gather(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of all ranks, on every rank. A collective call."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(outcomes)
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, list(outcomes))
    return [outcome for part in parts for outcome in part]


def flatten(results: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """{"a": 1, "b": {"c": 2}} -> {"prefix/a": 1.0, "prefix/b/c": 2.0}; None is left out."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}/{key}"))
        elif value is not None:
            flat[f"{prefix}/{key}"] = float(value)
    return flat
