"""What `fit` would build, without its evaluation, checkpoints, logs and run folder: to measure it or to plan it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from project.benchmarks.base import Benchmark
from project.cli.lightning_cli import ProjectCLI
from project.cli.refusals import check_trainer
from project.module import AlphaGRPO
from project.planning.counted_update import COUNTED, CountedUpdate, CountingCallback
from project.planning.measured import Cost, Recorder
from project.planning.out_of_memory import out_of_memory


class UnrecordedCLI(ProjectCLI):
    """Builds what `fit` would build, and trains by `turn`: no evaluation, no checkpoint, no run folder, no log."""

    model: AlphaGRPO

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = self._get(self.config_init, "trainer").as_dict()
        check_trainer(self.model, settings, self.files)
        given = settings.pop("callbacks") or []
        callbacks = [*given] if isinstance(given, list) else [given]
        callbacks += self._get(self.config_init, "rewards")
        self.callbacks = [c for c in callbacks if not isinstance(c, Benchmark | Checkpoint)]
        quiet = dict(
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            max_epochs=-1,
            max_time=None,
        )
        self.settings: dict[str, Any] = {**settings, **quiet}
        return Trainer(**{**self.settings, **kwargs})

    def _run_subcommand(self, subcommand: str) -> None:
        if not isinstance(self.model, AlphaGRPO):
            found = type(self.model).__name__
            raise ValueError(f"only project.module.AlphaGRPO is measured and planned, not {found}: give a YAML of it")

    def turn(self, cost: Cost, updates: int) -> None:
        """One warm-up update and `updates` measured ones, which are added to `cost`."""
        self._fit(1 + updates, Recorder(cost))

    def count(self) -> CountedUpdate:
        """One warm-up update and one that is counted. Raises ValueError for a model that has no plan."""
        counting = CountingCallback(self.settings.get("precision"), self.datamodule.prompts_per_update)
        self._fit(1 + COUNTED, counting)
        if counting.counted is None:
            raise ValueError(f"training stopped before the update that is counted: {self.model.gave_up or 'no step'}")
        return counting.counted

    def _fit(self, updates: int, callback: Callback) -> None:
        steps = updates * self.model.updating.per_rollout
        trainer = Trainer(**{**self.settings, "max_steps": steps, "callbacks": [*self.callbacks, callback]})
        try:
            trainer.fit(self.model, datamodule=self.datamodule)
        except MisconfigurationException as error:
            raise ValueError(str(error)) from error
        except torch.OutOfMemoryError as error:
            raise out_of_memory(error, self.model, trainer, self.datamodule) from error


def rotations(configurations: Mapping[str, Sequence[str]], updates: int) -> Iterator[dict[str, Cost]]:
    """Measures configurations, given by name as arguments of `fit`; yields the costs so far after every rotation.

    A single one has one turn of `updates` measured updates; several take `updates` turns of one each.
    """
    built = {name: UnrecordedCLI(["fit", *arguments]) for name, arguments in configurations.items()}
    costs = {name: Cost() for name in built}
    turns, each = (1, updates) if len(built) == 1 else (updates, 1)
    for _ in range(turns):
        for name, cli in built.items():
            cli.turn(costs[name], each)
        yield costs
