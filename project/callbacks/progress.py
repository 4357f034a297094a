"""`Progress`: a progress bar that shows the update and a few figures of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from project.trajectory import Group

METRICS = {"reward": "reward/mean", "s": "time/"}


class Progress(TQDMProgressBar):
    """Shows finished updates, the mean number of reasoning tokens and, as far as they were logged, `metrics`.

    Args:
        metrics: Label -> name of a logged metric; a name that ends in "/" stands for the sum of all below it.
        refresh_rate: Batches between two refreshes.
    """

    def __init__(self, metrics: dict[str, str] | None = None, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.metrics = METRICS if metrics is None else metrics
        self._tokens: float | None = None

    @property
    def sanity_check_description(self) -> str:
        return "Evaluation before training"

    @property
    def validation_description(self) -> str:
        return "Evaluation"

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        super().on_validation_batch_end(trainer, *args, **kwargs)
        self.val_progress_bar.set_postfix_str(_so_far(trainer), refresh=False)

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        super().on_test_batch_end(trainer, *args, **kwargs)
        self.test_progress_bar.set_postfix_str(_so_far(trainer), refresh=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        group = outputs.get("group") if isinstance(outputs, Mapping) else None
        if isinstance(group, Group) and len(group):
            tokens = sum(len(text.ids_T) for trajectory in group.trajectories for text in trajectory.texts)
            self._tokens = tokens / len(group)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown: dict[str, Any] = {"update": getattr(pl_module, "updates", 0)}
        if self._tokens is not None:
            shown["tokens"] = f"{self._tokens:.1f}"
        for label, name in self.metrics.items():
            below = name.endswith("/")
            values = [
                float(value)
                for logged, value in trainer.callback_metrics.items()
                if logged == name or (below and logged.startswith(name))
            ]
            if values:
                shown[label] = f"{sum(values):.3g}"
        return shown


def _so_far(trainer: Trainer) -> str:
    """What benchmarks say while they draw and judge."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return "; ".join(told for callback in callbacks if (told := getattr(callback, "so_far", "")))
