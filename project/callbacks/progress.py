"""`Progress`: a progress bar that shows the update and a few figures of it."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

METRICS = {"reward": "reward/mean", "words": "reasoning/length", "s": "time/update"}


class Progress(TQDMProgressBar):
    """Shows the number of finished updates and, as far as they were logged, the figures in `metrics`.

    Args:
        metrics: Label -> name of a logged metric.
        refresh_rate: Batches between two refreshes.
    """

    def __init__(self, metrics: dict[str, str] | None = None, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.metrics = METRICS if metrics is None else metrics

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown: dict[str, Any] = {"update": getattr(pl_module, "updates", 0)}
        logged = trainer.callback_metrics
        shown.update({label: f"{float(logged[name]):.3g}" for label, name in self.metrics.items() if name in logged})
        return shown
