"""`SaveLast`: `checkpoints/last.ckpt`, written at the boundary between two updates, in one step."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from project.core.atomic_files import NotWritten, durable_file
from project.core.errors import ScoringFailed
from project.core.jobs import Worker
from project.core.run_folder import on_rank_zero, run_folder

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Boundary:
    """Where training stood when an update had just finished."""

    updates: int
    epoch: int
    global_step: int
    loops: dict[str, Any]


class SaveLast(Checkpoint):
    """Saves the whole state of training every n updates, before a validation, when training stops and at the end.

    If scoring fails in the midst of an update (a judge is away, a reward raises an error), the state before that
    update is saved: rewards come before the first optimizer step, so the weights are still those, and going on repeats
    the update.

    It counts by `module.updates` (finished updates): Lightning's `global_step` counts optimizer steps, of which an
    update has several or none. The file is written beside the old one and then takes its place, so a crash at any
    moment leaves a complete `last.ckpt`.

    Args:
        every_n_updates: Updates between two saves.
        keep_every_n_updates: If given, a copy is kept as `update_N.ckpt` each time that many updates are finished.
        beside: Write in a thread of its own while training goes on. It takes memory for a copy of the checkpoint, and
            pays where files are large: when all weights are trained, or on a slow disk. A file that could not be
            written is told at the next save.
    """

    def __init__(
        self, every_n_updates: int = 10, keep_every_n_updates: int | None = None, beside: bool = False
    ) -> None:
        super().__init__()
        for name, value in (("every_n_updates", every_n_updates), ("keep_every_n_updates", keep_every_n_updates)):
            if value is not None and value < 1:
                raise ValueError(f"SaveLast: {name} = {value}: give at least 1")
        self.every_n_updates = every_n_updates
        self.keep_every_n_updates = keep_every_n_updates
        self.beside = beside
        self.folder: Path | None = None
        self.saved_updates = -1
        """Updates that the saved checkpoint holds; -1 = none was saved."""
        self._given_updates = -1
        """Updates of the checkpoint that was handed over to be written."""
        self._worker = Worker("checkpoint", beside=False)
        self._writing: Future[None] | None = None
        self._boundary: _Boundary | None = None
        self._interrupted = False

    @property
    def path(self) -> Path | None:
        """Where `last.ckpt` lies (or will), None before `setup`."""
        return self.folder and self.folder / "last.ckpt"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.folder = run_folder(trainer) / "checkpoints"
            self._worker = Worker("checkpoint", self.beside)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.path is not None and trainer.ckpt_path and self.path.resolve() == Path(trainer.ckpt_path).resolve():
            self.saved_updates = self._given_updates = _updates(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Only here does Lightning's progress describe the boundary of an update within an epoch, so whatever ends
        # the run or may be interrupted next (a validation) is foreseen here.
        updates = _updates(pl_module)
        self._boundary = _Boundary(
            updates=updates,
            epoch=trainer.current_epoch,
            global_step=trainer.global_step,
            loops=copy.deepcopy(trainer._checkpoint_connector._get_loops_state_dict()),
        )
        if updates % self.every_n_updates == 0 or self._kept(updates) or _pause_follows(trainer):
            self.save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, pl_module)
        self.finish(trainer)
        self._worker.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Saving is a collective call: on several ranks it must be certain that all are here.
        here = isinstance(exception, ScoringFailed) and (trainer.world_size == 1 or exception.agreed)
        if not here:
            try:
                self.wait()
            except NotWritten as error:
                _log.error("%s", error)
            return
        boundary = self._boundary
        if boundary and (boundary.updates, boundary.global_step) == (_updates(pl_module), trainer.global_step):
            self._interrupted = True
            self.save(trainer, pl_module)
        self.finish(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._interrupted and self._boundary is not None:
            # By now Lightning counts the interrupted update's prompts as handed out.
            checkpoint |= {"epoch": self._boundary.epoch, "loops": self._boundary.loops}

    def save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes `last.ckpt` unless it holds this update already, or begins to. A collective call.

        Raises NotWritten, on every rank, for an error of the file system: of this save, or with `beside` of the one
        before. The old file stays as it was.
        """
        updates = _updates(pl_module)
        if self.folder is None or updates in (0, self._given_updates):
            return
        self.finish(trainer)
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        if on_rank_zero():
            content = snapshot(checkpoint) if self.beside else checkpoint
            self._writing = self._worker.submit(self._write, self.folder, content, updates)
        self._given_updates = updates
        if not self.beside:
            self.finish(trainer)

    def finish(self, trainer: Trainer) -> None:
        """Waits until what was saved last is on the disk. A collective call. Raises as `save`."""
        if self.saved_updates == self._given_updates:
            return
        held, failed = self.saved_updates, None
        try:
            self.wait()
        except NotWritten as error:
            failed = error
        # Only rank 0 writes. If it alone raised, the others would wait for it in their next collective call.
        if (failed := trainer.strategy.broadcast(failed)) is not None:
            self.saved_updates = self._given_updates = held
            self._writing = None
            raise failed

    def wait(self) -> None:
        """The same for this rank alone; any but rank 0 takes it for granted. Raises NotWritten."""
        if self._writing is not None:
            self._writing.result()
        self.saved_updates = self._given_updates

    def _write(self, folder: Path, checkpoint: dict[str, Any], updates: int) -> None:
        with durable_file(folder / "last.ckpt") as stream:
            torch.save(checkpoint, stream)
            if self._kept(updates):
                stream.flush()
                # Before `last.ckpt`: a run that goes on from that one will not save this update again.
                with durable_file(folder / f"update_{updates}.ckpt") as copied:
                    shutil.copyfile(stream.name, copied.name)

    def _kept(self, updates: int) -> bool:
        return self.keep_every_n_updates is not None and updates % self.keep_every_n_updates == 0


def snapshot(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A copy that shares nothing with the run, whose tensors training changes in place. Its tensors are on the CPU."""
    copies: dict[int, Any] = {id(tensor): tensor.detach().to("cpu", copy=True) for tensor in _tensors(checkpoint)}
    return copy.deepcopy(checkpoint, copies)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


def _updates(module: LightningModule) -> int:
    updates = module.updates
    assert isinstance(updates, int)
    return updates


def _pause_follows(trainer: Trainer) -> bool:
    """Whether training stops, or validates, after the update that has just finished."""
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    return trainer.should_stop or loop._is_training_done or (fetcher is not None and loop._should_check_val_fx(fetcher))
