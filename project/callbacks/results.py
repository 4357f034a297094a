"""`Results`: `results.json`, the benchmarks' scores before and after training."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from project.benchmarks.base import Benchmark
from project.core.atomic_files import write_atomically
from project.core.run_folder import run_folder


class Results(Callback):
    """Writes {"before": S, "after": S, "updates", "seed", "seconds", "config", ...} into the run folder.

    S is what the run's benchmark measured (with several benchmarks: {name: its results}). `before` comes from the
    validation before training, if that was complete (`trainer.num_sanity_val_steps: -1`), `after` from the last one
    (the command `fit` validates once more at the end if need be). A resumed run keeps `before`; `seconds` counts the
    time in `fit` of the run and of those it goes on from.

    Args:
        seed: The run's seed, for the record.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self.file: Path | None = None
        self.before: dict[str, Any] | None = None
        self.after: dict[str, Any] | None = None
        self.measured_updates: int | None = None
        """Finished updates at the last validation after training began."""
        self._earlier_seconds = 0.0
        self._start = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.file = run_folder(trainer) / "results.json"
        if stage == "fit":
            self._start = time.monotonic()

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if math.isinf(trainer.num_sanity_val_steps):
            self.before = _scores(trainer)
            self._write(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.after = _scores(trainer)
            self.measured_updates = _updates(pl_module)
            self._write(trainer, pl_module)

    on_test_end = on_validation_end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        # As JSON text: a checkpoint holds tensors and primitives only.
        scores = json.dumps({"before": self.before, "after": self.after})
        return {"scores": scores, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        scores = json.loads(state_dict["scores"])
        self.before, self.after = scores["before"], scores["after"]
        self._earlier_seconds = state_dict["seconds"]

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._start

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.file is None or not trainer.is_global_zero:
            return
        record = {
            "before": self.before,
            "after": self.after,
            "updates": _updates(pl_module),
            "measured_updates": self.measured_updates,
            "seed": self.seed,
            "seconds": round(self._seconds(), 1),
            "config": str(self.file.parent / "config.yaml"),
            "torch": torch.__version__,
            "devices": trainer.world_size,
        }
        write_atomically(self.file, json.dumps(record, indent=2) + "\n")


def _updates(module: LightningModule) -> int:
    return int(getattr(module, "updates", 0))


def _scores(trainer: Trainer) -> dict[str, Any] | None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = {benchmark.name: benchmark.latest for benchmark in callbacks if isinstance(benchmark, Benchmark)}
    measured = {name: latest for name, latest in found.items() if latest is not None}
    if not measured:
        return None
    return dict(next(iter(measured.values()))) if len(found) == 1 else {name: dict(s) for name, s in measured.items()}
