"""`SaveLast(beside=True)`: files that a thread writes while training goes on are those of a run that waits for them."""

from __future__ import annotations

import errno
import logging
import threading
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from lightning import Callback

from project.callbacks.checkpoint import SaveLast, snapshot
from project.callbacks.ema import EMA
from project.core.atomic_files import NotWritten
from tests.helpers.state import digest, saved
from tests.helpers.tiny_module import make_module, train

UPDATES = 3


class Late(Callback):
    """Lets a file be written only after the update that follows, if there is one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.updated = [threading.Event() for _ in range(UPDATES + 1)]
        self.threads: list[str] = []
        save = torch.save

        def late(checkpoint: dict[str, Any], stream: IO[bytes]) -> None:
            self.threads.append(threading.current_thread().name)
            if checkpoint["updates"] < UPDATES:
                assert self.updated[checkpoint["updates"]].wait(20), "training does not go on"
            save(checkpoint, stream)

        monkeypatch.setattr(torch, "save", late)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.trainer.optimizers[0].register_step_post_hook(lambda *_: self.updated[pl_module.updates].set())


def run(folder: Path, saving: SaveLast, *callbacks: Callback, **settings: Any) -> Any:
    torch.manual_seed(0)
    return train(
        make_module(optimizer=torch.optim.AdamW), updates=UPDATES, callbacks=[EMA(0.5), saving, *callbacks],
        enable_checkpointing=True, default_root_dir=folder, **settings,
    )  # fmt: skip


def test_files_written_while_weights_change_are_those_of_a_run_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "waits", SaveLast(every_n_updates=1, keep_every_n_updates=1))
    late, saving = Late(monkeypatch), SaveLast(every_n_updates=1, keep_every_n_updates=1, beside=True)
    run(tmp_path / "beside", saving, late)
    assert saving.saved_updates == UPDATES and len(late.threads) == UPDATES and "MainThread" not in late.threads
    ends = set()
    for name in ("last", *(f"update_{n + 1}" for n in range(UPDATES))):
        waits, beside = (tmp_path / way / f"checkpoints/{name}.ckpt" for way in ("waits", "beside"))
        assert beside.read_bytes() == waits.read_bytes(), name
        ends.add(digest(saved(beside)))
    assert len(ends) == UPDATES, "every update has a state of its own"


def test_a_run_that_goes_on_from_such_a_file_ends_where_the_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Late(monkeypatch)
    run(tmp_path / "whole", SaveLast(every_n_updates=1, keep_every_n_updates=1, beside=True), late)
    first = tmp_path / "whole/checkpoints/update_1.ckpt"
    run(tmp_path / "on", SaveLast(every_n_updates=1, beside=True), ckpt_path=first)
    whole, on = (saved(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "on"))
    for part in ("state_dict", "optimizer_states", "callbacks", "updates"):
        assert digest({"part": whole[part]}) == digest({"part": on[part]}), part


@pytest.mark.parametrize("update", range(1, UPDATES + 1))
def test_what_could_not_be_written_ends_the_run_at_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: int
) -> None:
    """Also where there is no next save, because the run ends."""
    save = torch.save

    def full(checkpoint: dict[str, Any], stream: IO[bytes]) -> None:
        if checkpoint["updates"] == update:
            stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, stream)

    monkeypatch.setattr(torch, "save", full)
    saving = SaveLast(every_n_updates=1, beside=True)
    with pytest.raises(NotWritten, match=r"checkpoints/last\.ckpt could not be written .*: make room on that disk"):
        run(tmp_path, saving)
    assert saving.saved_updates == (update - 1 or -1)
    files = list((tmp_path / "checkpoints").iterdir())
    assert [saved(file)["updates"] for file in files] == ([update - 1] if update > 1 else [])


class Breaks(Callback):
    """Raises an error of its own after the first update, when its file has begun to be written."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.updates == 1:
            raise RuntimeError("something else")


@pytest.mark.parametrize("full", [False, True])
def test_another_error_waits_for_the_file_and_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, full: bool
) -> None:
    save, raised = torch.save, threading.Event()

    def slow(checkpoint: dict[str, Any], stream: IO[bytes]) -> None:
        raised.wait(0.5)
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, stream)

    monkeypatch.setattr(torch, "save", slow)
    saving = SaveLast(every_n_updates=1, beside=True)
    with caplog.at_level(logging.ERROR), pytest.raises(RuntimeError, match="something else"):
        run(tmp_path, saving, Breaks())
    assert ("could not be written" in caplog.text) == full
    assert saving.saved_updates == (-1 if full else 1)
    assert full or saved(tmp_path / "checkpoints/last.ckpt")["updates"] == 1


def test_a_snapshot_shares_nothing() -> None:
    weight, rows = torch.ones(2), [1]
    held = {"a": {"b": [weight, (weight, rows)]}, "c": weight.view(1, 2)}
    copied = snapshot(held)
    weight.add_(1)
    rows.append(2)
    assert copied["a"]["b"][0].tolist() == [1, 1] and copied["c"].tolist() == [[1, 1]]
    assert copied["a"]["b"][1][0] is copied["a"]["b"][0] and copied["a"]["b"][1][1] == [1]
