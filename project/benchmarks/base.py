"""`Benchmark`: a callback that measures what validation and test generate."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics import Metric

from project.run_folder import run_folder, write_atomically
from project.trajectory import Group, Trajectory

Results = dict[str, Any]
"""Figure -> number, or a dict of such."""
Outcome = dict[str, Any]
"""What was measured on one prompt: JSON values."""


class Benchmark(Callback, ABC):
    """Measures every prompt of an evaluation and turns the outcomes into figures.

    A benchmark says what one trajectory is worth (`measure`) and holds the torchmetrics `metric` whose
    `update(outcome)` takes it and whose `compute()` gives the figures, synchronised over ranks. The outputs of the
    module's `validation_step` and `test_step` are a `Group` with one trajectory a prompt (alone, or under the key
    "group").

    The figures are kept in `latest`, logged as `NAME/...` at step `module.updates` (also in the
    evaluation before training, where `self.log` does nothing), and every outcome goes into the run folder as
    `evaluations/NAME_UPDATE.jsonl`, for paired comparisons.
    """

    latest: Results | None = None
    """The figures of the last evaluation."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._folder: Path | None = None
        self._outcomes: list[Outcome] = []

    @property
    def name(self) -> str:
        """Prefix of the logged figures: the class name without "Benchmark", in lower case."""
        return type(self).__name__.removesuffix("Benchmark").lower()

    @abstractmethod
    def measure(self, trajectory: Trajectory, reward: float | None) -> Outcome:
        """Outcome of one prompt: JSON values by name.

        `reward` is that of the module's reward callbacks (None if it was not scored).
        """

    def update(self, group: Group) -> None:
        """Adds the outcomes of a batch; prompts that only fill up a batch are left out."""
        rewards = [None] * len(group) if group.scores is None else group.scores.reward_N.tolist()
        for trajectory, reward in zip(group.trajectories, rewards, strict=True):
            if trajectory.prompt.columns.get("padding"):
                continue
            outcome = self.measure(trajectory, reward)
            self.metric.update(outcome)
            self._outcomes.append({"id": trajectory.prompt.id, **outcome})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder = run_folder(trainer) / "evaluations"

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._outcomes = []
        self.metric.reset()
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
        group = outputs["group"] if isinstance(outputs, Mapping) else outputs
        if not isinstance(group, Group):
            raise ValueError(
                f"{type(self).__name__} measures a Group, but the module's step returned {type(group).__name__}: "
                'return the rollout, or {"group": rollout}'
            )
        self.update(group)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        outcomes = gather(self._outcomes)
        self.latest = self.metric.compute()
        scalars = flatten(self.latest, self.name)
        updates = int(getattr(pl_module, "updates", 0))
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=updates)
        if not trainer.sanity_checking:
            pl_module.log_dict(scalars, logger=False, batch_size=1)
        if trainer.is_global_zero and self._folder is not None:
            rows = (json.dumps(outcome) + "\n" for outcome in sorted(outcomes, key=lambda outcome: str(outcome["id"])))
            write_atomically(self._folder / f"{self.name}_{updates}.jsonl", "".join(rows))

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


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
