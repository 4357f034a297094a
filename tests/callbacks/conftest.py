"""A trainer over the toy module of `tests/toys.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger

from project.datamodule import PromptDataModule
from tests.helpers import toys

Fit = Callable[..., Trainer]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Fits a toy for a number of updates, in `tmp_path`."""

    def run(
        *callbacks: Callback,
        updates: int = 4,
        ckpt_path: Path | None = None,
        logger: Logger | bool = False,
        **others: int,
    ) -> Trainer:
        (tmp_path / "train.txt").write_text("".join(f"{'x' * n}\n" for n in range(1, 13)))
        (tmp_path / "val.txt").write_text("a\nbb\n")
        trainer = Trainer(
            accelerator="cpu",
            max_steps=updates,
            callbacks=list(callbacks),
            logger=logger,
            default_root_dir=tmp_path,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any("SaveLast" in type(c).__name__ for c in callbacks),
            log_every_n_steps=1,
            **others,
        )
        data = PromptDataModule(str(tmp_path / "train.txt"), str(tmp_path / "val.txt"), prompts_per_update=2)
        trainer.fit(toys.Tiny(toys.Net()), data, ckpt_path=ckpt_path)
        return trainer

    return run
