"""The rollout panel: what is written beside a picture, and that it reaches TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from project.callbacks.panels import RolloutPanel, answers, caption, markdown, panel_HWC
from project.callbacks.progress import Progress
from project.trajectory import Group, Prompt, Question
from tests.helpers import toys

PROMPT = Prompt(id="p", text="a <b> | $x", questions=(Question(text="is it red?"), Question(text="is it round?")))


def test_caption_and_table() -> None:
    group: Group = toys.group([PROMPT], size=2)
    assert answers(group, 1) == [("is it red?", "0.25"), ("is it round?", "-")]
    assert caption(group, 1).splitlines() == [
        "a <b> | $x",
        "  reward 1.000, advantage image +0.50, text +0.50",
        "red circle",
        "  0.25  is it red?",
        "  -  is it round?",
    ]
    table = markdown(group, range(2))
    assert table.startswith("**a &lt;b> \\| $x**") and "| 1 | red circle | is it red? 0.25; is it round? - |" in table
    unscored = Group(trajectories=group.trajectories, size=2)
    assert "not scored" in caption(unscored, 0) and answers(unscored, 0)[0] == ("is it red?", "-")


def test_panel_shows_the_pictures() -> None:
    panel = panel_HWC(toys.group([PROMPT], size=2), range(2))
    assert panel.dtype == np.uint8 and panel.ndim == 3
    # Sample 1 is a flat picture of level 40: a block of that level stands in the panel.
    assert (panel == 40).all(-1).sum() > 1000
    without_text = panel_HWC(toys.group([Prompt(id="q", text=" ")], size=2), range(1))
    assert without_text.shape[0] < panel.shape[0]


def test_panel_reaches_tensorboard(fit: Any, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="board")
    fit(RolloutPanel(every_n_updates=2, max_samples=1), updates=4, logger=logger)
    events = EventAccumulator(str(tmp_path / "board"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("rollout")] == [2, 4]


def test_progress_shows_update_tokens_and_logged_figures(fit: Any) -> None:
    progress = Progress(metrics={"reward": "reward/mean", "sum": "reward/", "absent": "no/such"})
    progress.disable()
    trainer = fit(updates=3)
    progress.on_train_batch_end = None  # type: ignore[assignment]
    progress._tokens = 3.0
    shown = progress.get_metrics(trainer, trainer.lightning_module)
    assert shown == {"update": 3, "tokens": "3.0", "reward": "3", "sum": "3"}
