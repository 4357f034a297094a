"""`GracefulStop`: Ctrl-C and SIGTERM end a run between two updates, saved, with a word on how to go on."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any, Protocol

from lightning.pytorch import Callback, LightningModule, Trainer

from project.callbacks.checkpoint import SaveLast
from project.core.run_folder import on_rank_zero, run_folder

_log = logging.getLogger(__name__)


class Interrupted(Exception):
    """A signal ended the run; the message says how to go on."""

    def __init__(self, message: str, signal: signal.Signals) -> None:
        super().__init__(message)
        self.signal = signal


class _Waiting(Protocol):
    """A callback that may wait for a judge: a reward, a benchmark with one of its own, a gold judge."""

    def stop_waiting(self) -> None: ...


class GracefulStop(Callback):
    """On the first SIGINT or SIGTERM the update at work finishes, `SaveLast` saves, and training ends; a second
    signal ends it at once. A validation is left at its next batch (the state was saved before it began), and a judge
    that is away is not waited for: the state before this update is saved.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.folder = ""
        self.waiting: list[_Waiting] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = str(run_folder(trainer))
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self.waiting = [callback for callback in callbacks if hasattr(callback, "stop_waiting")]

    # Lightning sets its own handlers after `on_fit_start` and restores the original ones at the end.
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()
        if self._requested(trainer):
            self.raise_if_stopped(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._requested(trainer):
            trainer.should_stop = True
            # Lightning validates once more before it stops: that may take minutes.
            trainer.limit_val_batches = 0

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.state.fn == "fit" and self._requested(trainer):
            # Here all ranks wait for the one that writes; where one of them ends, a launcher may end the others.
            for callback in _saving(trainer):
                callback.finish(trainer)
            self.raise_if_stopped(trainer)

    def raise_if_stopped(self, trainer: Trainer) -> None:
        """Raises Interrupted if a signal ended the run."""
        if self.signal is not None:
            raise Interrupted(self.message(trainer), self.signal)

    def message(self, trainer: Trainer) -> str:
        """What was saved, and the command that goes on."""
        saved = next((callback for callback in _saving(trainer) if callback.saved_updates > 0), None)
        if saved is None:
            return "Stopped before the first update was saved: start again."
        return (
            f"Stopped after update {saved.saved_updates}, saved as {saved.path}. Go on with:\n"
            f"  python -m project fit --config {self.folder}/config.yaml --ckpt_path {saved.path}"
        )

    def _requested(self, trainer: Trainer) -> bool:
        """Whether any rank was told to stop: ranks that stop at different updates would hang."""
        requested = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        if requested and self.signal is None:
            self.signal = signal.SIGTERM
        return requested

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise KeyboardInterrupt
        self.signal = signal.Signals(signum)
        for callback in self.waiting:
            callback.stop_waiting()
        if on_rank_zero():
            _log.warning("%s: stopping after this update; once more stops at once, unsaved", self.signal.name)


def _saving(trainer: Trainer) -> list[SaveLast]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, SaveLast)]
