"""A published benchmark that writes down when it draws."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from project.benchmarks.published import PublishedBenchmark

Span = tuple[float, float]
"""Beginning and end [s, `time.monotonic`]."""


@dataclass
class Times:
    """Of one evaluation."""

    began: float = 0.0
    ended: float = 0.0
    drawing: list[Span] = field(default_factory=list)
    """Of each batch."""
    requests: list[Span] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def in_flight(self) -> int:
        """Requests that were at work while a batch was drawn."""
        return sum(any(a < end and start < b for start, end in self.drawing) for a, b in self.requests)


LATEST: list[Times] = []
"""Of the evaluations of this process."""


class TimedBenchmark(PublishedBenchmark):
    """Writes down when it works."""

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_epoch_start(trainer, pl_module)
        LATEST.append(Times(began=time.monotonic()))

    def on_test_batch_start(self, *_: Any) -> None:
        self.batch_began = time.monotonic()

    def on_test_batch_end(self, *arguments: Any) -> None:
        LATEST[-1].drawing.append((self.batch_began, time.monotonic()))
        super().on_test_batch_end(*arguments)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_epoch_end(trainer, pl_module)
        LATEST[-1].ended = time.monotonic()
