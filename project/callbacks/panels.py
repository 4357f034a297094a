"""`RolloutPanel`: one group of an update as a picture and a table in TensorBoard."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from project.trajectory import Group, ImageSegment, Trajectory

WIDTH = 78
"""Characters of a line beside a picture."""


class RolloutPanel(Callback):
    """Logs samples of an update's first prompt, round by round: pictures, texts, questions, confidences and reward.

    Args:
        every_n_updates: Updates between two panels.
        max_samples: Samples shown, the first of the group.
    """

    def __init__(self, every_n_updates: int = 10, max_samples: int = 4) -> None:
        if every_n_updates < 1 or max_samples < 1:
            raise ValueError(f"RolloutPanel: {every_n_updates=}, {max_samples=}: give at least 1")
        self.every_n_updates = every_n_updates
        self.max_samples = max_samples

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        updates = int(getattr(pl_module, "updates", 0))
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not boards or updates % self.every_n_updates or not isinstance(outputs, Mapping):
            return
        for number, group in enumerate(outputs.get("groups") or [outputs.get("group")]):
            if not isinstance(group, Group):
                return
            shown = range(min(self.max_samples, group.size))
            panel, table = panel_HWC(group, shown), markdown(group, shown)
            name = f"rollout/{number}" if number else "rollout"
            for board in boards:
                board.experiment.add_image(name, panel, updates, dataformats="HWC")
                board.experiment.add_text(name, table, updates)


def panel_HWC(group: Group, samples: range) -> np.ndarray:
    """The samples one under another, uint8 [height, width, 3]: pictures on the left, what was said on the right."""
    texts = [caption(group, n) for n in samples]
    heights = [max(1.4, 0.17 * (text.count("\n") + 2)) for text in texts]
    pictures = {n: _pictures(group.trajectories[n]) for n in samples}
    columns = max(map(len, pictures.values())) or 1
    figure = Figure(figsize=(1.5 * columns + 7, sum(heights)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(texts), columns + 1, height_ratios=heights, width_ratios=[1.5] * columns + [7])
    for row, (n, text) in enumerate(zip(samples, texts, strict=True)):
        for column, image in enumerate(pictures[n]):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(_pixels(image), interpolation="nearest")
            axes.axis("off")
        axes = figure.add_subplot(grid[row, columns])
        axes.axis("off")
        # parse_math=False: model text may hold dollar signs.
        axes.text(0, 1, text, va="top", family="monospace", fontsize=8, transform=axes.transAxes, parse_math=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def caption(group: Group, n: int) -> str:
    """What is written beside sample n."""
    trajectory = group.trajectories[n]
    lines = [f"{trajectory.prompt.text}", f"  {judgement(group, n)}", *(t.text.strip() for t in trajectory.texts)]
    lines += [f"  {confidence}  {question}" for question, confidence in answers(group, n)]
    return "\n".join(line for text in lines for line in textwrap.wrap(text, WIDTH, subsequent_indent="    "))


def markdown(group: Group, samples: range) -> str:
    """The same as a table."""
    rows = ["| sample | reasoning | questions | judgement |", "| --- | --- | --- | --- |"]
    for n in samples:
        questions = "; ".join(f"{question} {confidence}" for question, confidence in answers(group, n))
        cells = (str(n), group.trajectories[n].reasoning, questions, judgement(group, n))
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return f"**{_cell(group.trajectories[samples[0]].prompt.text)}**\n\n" + "\n".join(rows)


def judgement(group: Group, n: int) -> str:
    """Reward and advantages of sample n, as far as they are known."""
    parts = []
    if group.scores is not None:
        parts.append(f"reward {group.scores.reward_N[n]:.3f}")
    if group.advantages is not None:
        advantages = group.advantages
        parts.append(f"advantage image {advantages.image_N[n]:+.2f}, text {advantages.text_N[n]:+.2f}")
    return ", ".join(parts) or "not scored"


def answers(group: Group, n: int) -> list[tuple[str, str]]:
    """(question, confidence) of sample n; "-" where a question is unanswered."""
    questions = group.trajectories[n].prompt.questions
    if group.scores is None or not group.scores.confidence_NQ:
        return [(question.text, "-") for question in questions]
    confidences = group.scores.confidence_NQ[n]
    return [
        (question.text, "-" if confidence is None else f"{confidence:.2f}")
        for question, confidence in zip(questions, confidences, strict=True)
    ]


def _pictures(trajectory: Trajectory) -> list[ImageSegment]:
    """What was looked at, then what was drawn."""
    return [*([] if trajectory.source is None else [trajectory.source]), *trajectory.images]


def _pixels(image: ImageSegment) -> np.ndarray:
    return image.pixels_HWC.cpu().numpy()


def _cell(text: str) -> str:
    """Model text that may stand in a table: no line ends, no bars, no tags."""
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
