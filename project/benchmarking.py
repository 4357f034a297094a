"""Seconds, throughput and memory of whole updates of a configuration, beside those of changed configurations.

A turn is a `fit` of one warm-up update and some measured ones. Variants take turns, base and variants in rotation, so
that whatever slows the machine down slows all of them; in the k-th turn all draw the same prompts and noise.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from project.benchmarks.base import Benchmark
from project.cli import ProjectCLI
from project.module import AlphaGRPO
from project.out_of_memory import out_of_memory

PHASES = ("rollout_text", "rollout_image", "judge", "judge_wait", "replay", "reference", "backward", "optimizer")
"""In the order in which they are reported; others follow."""
CLEAR_PEAK = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCost:
    """What one update took."""

    seconds: Mapping[str, float]
    """Per phase; `other` is what no phase claims (data, advantages, logging, callbacks), `total` is everything."""
    images: int
    tokens: int
    """Reasoning tokens that were sampled."""


@dataclass(slots=True, kw_only=True)
class Cost:
    """The measured updates of one configuration, and its peak memory [bytes], warm-up included."""

    updates: list[UpdateCost] = field(default_factory=list)
    peak_bytes: int = 0

    def seconds(self, phase: str) -> float:
        """Mean over the updates; 0 if there was no such phase."""
        return fmean(update.seconds.get(phase, 0.0) for update in self.updates)

    @property
    def phases(self) -> list[str]:
        """Phases that occurred, then `other` and `total`."""
        seen = {name for update in self.updates for name in update.seconds} - {"other", "total"}
        return [*(n for n in PHASES if n in seen), *sorted(seen - set(PHASES)), "other", "total"]

    @property
    def images_per_second(self) -> float:
        return fmean(update.images for update in self.updates) / self.seconds("total")

    @property
    def tokens_per_second(self) -> float:
        return fmean(update.tokens for update in self.updates) / self.seconds("total")

    def ratio(self, base: Cost, phase: str) -> float | None:
        """Seconds relative to those of another configuration; None where that has none."""
        return self.seconds(phase) / base.seconds(phase) if base.seconds(phase) else None

    def paired_ratios(self, base: Cost) -> list[float]:
        """Total seconds of each update relative to the base's update of the same turn."""
        pairs = zip(self.updates, base.updates, strict=True)
        return [mine.seconds["total"] / theirs.seconds["total"] for mine, theirs in pairs]


class Recorder(Callback):
    """Keeps what each update after the first took. Put it last, so that the other callbacks are in the time."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self._last: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reset_peak_memory()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._last is not None:
            phases = {
                name.removeprefix("time/"): float(value)
                for name, value in trainer.callback_metrics.items()
                if name.startswith("time/")
            }
            total = now - self._last
            drawn = [trajectory for group in outputs["groups"] for trajectory in group.trajectories]
            self.cost.updates.append(
                UpdateCost(
                    seconds={**phases, "other": total - sum(phases.values()), "total": total},
                    images=sum(len(trajectory.images) for trajectory in drawn),
                    tokens=sum(len(text.ids_T) for trajectory in drawn for text in trajectory.texts),
                )
            )
        self.cost.peak_bytes = max(self.cost.peak_bytes, peak_memory())
        self._last = time.perf_counter()


class UnrecordedCLI(ProjectCLI):
    """Builds what `fit` would build, and trains by `turn`: no evaluation, no checkpoint, no run folder, no log."""

    model: AlphaGRPO

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = self._get(self.config_init, "trainer").as_dict()
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
        steps = (1 + updates) * self.model.updates_per_rollout
        trainer = Trainer(**{**self.settings, "max_steps": steps, "callbacks": [*self.callbacks, Recorder(cost)]})
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


def reset_peak_memory() -> None:
    """Forget the peak so far, where that is possible (GPUs, Linux)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR_PEAK.exists():
        CLEAR_PEAK.write_text("5")


def peak_memory() -> int:
    """Most memory that this process held [bytes]: of the GPU if there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
