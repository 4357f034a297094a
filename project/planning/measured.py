"""Seconds, throughput and memory of whole updates of a configuration, beside those of changed configurations.

A turn is a `fit` of one warm-up update and some measured ones. Variants take turns, base and variants in rotation, so
that whatever slows the machine down slows all of them; in the k-th turn all draw the same prompts and noise.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from project.core.timing import GB

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

    @property
    def totals(self) -> list[float]:
        """Seconds of each update."""
        return [update.seconds["total"] for update in self.updates]

    @property
    def images_per_hour(self) -> float:
        """Of one process, at the median update."""
        return 3600 * fmean(update.images for update in self.updates) / median(self.totals)

    def ratio(self, base: Cost, phase: str) -> float | None:
        """Seconds relative to those of another configuration; None where that has none."""
        return self.seconds(phase) / base.seconds(phase) if base.seconds(phase) else None

    def paired_ratios(self, base: Cost) -> list[float]:
        """Total seconds of each update relative to the base's update of the same turn."""
        return [mine / theirs for mine, theirs in zip(self.totals, base.totals, strict=True)]


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
        # On a GPU the module begins to count anew at every phase.
        self.cost.peak_bytes = max(self.cost.peak_bytes, peak_memory(), *logged_peaks(trainer.callback_metrics))
        self._last = time.perf_counter()


def logged_peaks(metrics: Mapping[str, Any]) -> list[int]:
    """The peaks of the phases of an update [bytes], as the module logs them on a GPU."""
    phases = {name for name in metrics if name.startswith("memory/")} - {"memory/reserved", "memory/resident"}
    return [round(GB * float(metrics[name])) for name in phases]


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
