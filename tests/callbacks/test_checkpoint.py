"""`SaveLast`: at boundaries, whole or not at all."""

from __future__ import annotations

import errno
import pickle
import resource
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from lightning import Trainer

from project.callbacks.checkpoint import SaveLast
from project.core.atomic_files import NotWritten


def test_saves_every_n_updates_and_at_the_end(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = SaveLast.save

    def spy(self: SaveLast, trainer: Trainer, pl_module: Any) -> None:
        if self.saved_updates != pl_module.updates:
            saved.append(pl_module.updates)
        save(self, trainer, pl_module)

    monkeypatch.setattr(SaveLast, "save", spy)
    fit(SaveLast(every_n_updates=2, keep_every_n_updates=4), updates=5, limit_val_batches=0)
    assert saved == [2, 4, 5]
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["last.ckpt", "update_4.ckpt"]
    load = {name: torch.load(tmp_path / "checkpoints" / name, weights_only=True) for name in names}
    assert [load[name]["updates"] for name in names] == [5, 4]


def test_a_disk_that_is_full_leaves_the_old_file(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(checkpoint: dict[str, Any], stream: IO[bytes]) -> None:
        if checkpoint["updates"] == 3:
            stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(checkpoint, stream)

    original = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NotWritten, match=r"checkpoints/last\.ckpt could not be written .*: make room on that disk"):
        fit(SaveLast(every_n_updates=1), limit_val_batches=0)
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["updates"] == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"], "half of a file takes room"


def test_a_limit_on_the_size_of_files_is_told(fit: Any, tmp_path: Path) -> None:
    """What the operating system itself refuses while torch writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        with pytest.raises(NotWritten, match=r"checkpoints/last\.ckpt could not be written .*ulimit -f unlimited"):
            fit(SaveLast(every_n_updates=1), limit_val_batches=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_folder_that_became_read_only_is_told(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(SaveLast(every_n_updates=1), updates=2, limit_val_batches=0)
    saved = (tmp_path / "checkpoints/last.ckpt").read_bytes()
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **others: Any) -> Any:
        if self.name.endswith(".ckpt.new"):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(self, *arguments, **others)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(NotWritten, match=r"last\.ckpt could not be written .*read-only, take another folder"):
        fit(SaveLast(every_n_updates=1), limit_val_batches=0)
    assert (tmp_path / "checkpoints/last.ckpt").read_bytes() == saved


def test_ranks_tell_each_other_what_was_not_written() -> None:
    error = NotWritten(Path("runs/last.ckpt"), OSError(errno.ENOSPC, "No space left on device"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_refuses_zero() -> None:
    with pytest.raises(ValueError, match="every_n_updates = 0"):
        SaveLast(every_n_updates=0)


def test_kept_copies_do_not_depend_on_the_other_interval(fit: Any, tmp_path: Path) -> None:
    fit(SaveLast(every_n_updates=10, keep_every_n_updates=2), updates=5, limit_val_batches=0)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("update_*.ckpt"))
    assert kept == ["update_2.ckpt", "update_4.ckpt"]
