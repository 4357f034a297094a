"""`SaveLast`: at boundaries, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_a_crash_while_writing_leaves_the_old_file(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Trainer, path: Path, **_: Any) -> None:
        if self.lightning_module.updates == 3:
            Path(path).write_bytes(b"half")
            raise OSError("disk full")
        original(self, path, **_)

    original = Trainer.save_checkpoint
    monkeypatch.setattr(Trainer, "save_checkpoint", crash)
    with pytest.raises(NotWritten, match=r"checkpoints/last\.ckpt could not be written \(disk full\)"):
        fit(SaveLast(every_n_updates=1), limit_val_batches=0)
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["updates"] == 2


def test_folders_are_replaced_too(tmp_path: Path) -> None:
    from project.callbacks.checkpoint import _replace

    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard").write_text(name)
    _replace(tmp_path / "new", tmp_path / "old")
    assert [p.name for p in tmp_path.iterdir()] == ["old"] and (tmp_path / "old/shard").read_text() == "new"


def test_refuses_zero() -> None:
    with pytest.raises(ValueError, match="every_n_updates = 0"):
        SaveLast(every_n_updates=0)


def test_kept_copies_do_not_depend_on_the_other_interval(fit: Any, tmp_path: Path) -> None:
    fit(SaveLast(every_n_updates=10, keep_every_n_updates=2), updates=5, limit_val_batches=0)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("update_*.ckpt"))
    assert kept == ["update_2.ckpt", "update_4.ckpt"]
