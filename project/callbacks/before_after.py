"""`BeforeAfter`: the same prompts with the same noise before and after training, in one picture."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from project.benchmarks.base import Benchmark, gather
from project.core.atomic_files import atomic_file
from project.core.run_folder import run_folder
from project.datamodule import evaluated_prompts
from project.trajectory import Group, Prompt

COLUMNS = 3
"""Pairs beside each other."""
SIDE, LINE, HEAD, TITLE = 2.0, 0.14, 0.4, 0.75
"""Heights of a picture, a line of its reasoning, its prompt, and the title [inches]."""
WIDTH, LINES = 34, 4
"""Characters and lines of the reasoning under a picture; what is longer is cut."""
FRAMES = {True: "#1b9e77", False: "#d95f02", None: "0.8"}
"""By whether the benchmark found the picture right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What an evaluation drew for one prompt."""

    prompt: str
    reasoning: str
    pixels_HWC: np.ndarray
    """uint8."""
    right: bool | None = None
    """None where no benchmark tells."""


class BeforeAfter(Callback):
    """Writes `before_after.png` into the run folder after every evaluation, and into TensorBoard.

    Evaluations draw a prompt with the same noise each time, so what differs is what training did. `before` comes from
    the evaluation before training, if that was complete (`trainer.num_sanity_val_steps: -1`); it is kept in
    `before_after.pt` for runs that go on. A frame tells whether the benchmark found the picture right. Where a task
    refines, the first pictures are shown.

    Args:
        number: Prompts shown, evenly from each set of the evaluation (the column `set` of its prompts).
    """

    def __init__(self, number: int = 12) -> None:
        if number < 1:
            raise ValueError(f"BeforeAfter: number = {number}: give at least 1")
        self.number = number
        self.folder: Path | None = None
        self.chosen: list[str] = []
        self._drawn: dict[str, Drawn] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = run_folder(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        without = {c.name for c in callbacks if isinstance(c, Benchmark) and not c.of_pictures}
        drawn = [prompt for prompt in evaluated_prompts(trainer) if prompt.benchmark not in without]
        self.chosen = chosen(drawn, self.number)
        self._drawn = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        group = outputs.get("group") if isinstance(outputs, Mapping) else outputs
        for trajectory in group.trajectories if isinstance(group, Group) else ():
            if trajectory.prompt.id in self.chosen and trajectory.images:
                pixels_HWC = trajectory.image.pixels_HWC.cpu().numpy()
                self._drawn[trajectory.prompt.id] = Drawn(
                    prompt=trajectory.prompt.text, reasoning=trajectory.reasoning, pixels_HWC=pixels_HWC
                )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        drawn = dict(pair for pairs in gather([self._drawn]) for pair in pairs.items())
        if not trainer.is_global_zero or self.folder is None:
            return
        updates = int(getattr(pl_module, "updates", 0))
        found = judged(self.folder / "evaluations", trainer, updates)
        drawn = {key: replace(drawn[key], right=found.get(key)) for key in self.chosen if key in drawn}
        before_file = self.folder / "before_after.pt"
        if trainer.sanity_checking:
            if math.isinf(trainer.num_sanity_val_steps):
                save(before_file, drawn)
            return
        before = load(before_file) if before_file.is_file() else {}
        pairs = [(before[key], drawn[key]) for key in drawn if key in before]
        if not pairs:
            return
        picture_HWC = draw(pairs, updates, self.folder / "before_after.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("before_after", picture_HWC, updates, dataformats="HWC")


def chosen(prompts: Sequence[Prompt], number: int) -> list[str]:
    """Ids of `number` prompts of different texts (or all), as many of each set as can be, evenly over its prompts."""
    sets: dict[str, dict[str, str]] = {}
    for prompt in prompts:
        sets.setdefault(str(prompt.columns.get("set", "")), {}).setdefault(prompt.text, prompt.id)
    ids = []
    for place, texts in enumerate(sets.values()):
        of_set = list(texts.values())
        share = min(len(of_set), number // len(sets) + (place < number % len(sets)))
        ids += [of_set[int((n + 0.5) * len(of_set) / share)] for n in range(share)]
    return ids


def judged(folder: Path, trainer: Trainer, updates: int) -> dict[str, bool | None]:
    """By the id of a prompt whether its picture was right, as the benchmarks of the run wrote after this update."""
    found: dict[str, bool | None] = {}
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for benchmark in (c for c in callbacks if isinstance(c, Benchmark) and c.right is not None):
        file = folder / f"{benchmark.name}_{updates}.jsonl"
        rows = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        for row in map(json.loads, rows):
            value = row.get(benchmark.right)
            found[row["id"]] = None if value is None else bool(value)
    return found


def save(file: Path, drawn: Mapping[str, Drawn]) -> None:
    """Writes what was drawn, by the id of the prompt."""
    rows = {
        key: {"prompt": d.prompt, "reasoning": d.reasoning, "right": d.right, "pixels": torch.as_tensor(d.pixels_HWC)}
        for key, d in drawn.items()
    }
    with atomic_file(file) as stream:
        torch.save(rows, stream)


def load(file: Path) -> dict[str, Drawn]:
    """What `save` wrote."""
    rows = torch.load(file, weights_only=True)
    return {
        key: Drawn(prompt=r["prompt"], reasoning=r["reasoning"], right=r["right"], pixels_HWC=r["pixels"].numpy())
        for key, r in rows.items()
    }


def draw(pairs: Sequence[tuple[Drawn, Drawn]], updates: int, file: Path) -> np.ndarray:
    """Writes the picture and returns it, uint8 [height, width, 3]: a pair a prompt, reasoning under each."""
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    words = [[_lines(re.sub(r"</?think>", "", drawn.reasoning), WIDTH, LINES) for drawn in pair] for pair in pairs]
    foot = (max(len(lines) for pair in words for lines in pair) + 1.5) * LINE
    cell = SIDE + HEAD + foot
    figure = Figure(figsize=(columns * (2 * SIDE + 0.5), rows * cell + TITLE), dpi=100)
    canvas = FigureCanvasAgg(figure)
    top, body = figure.subfigures(2, 1, height_ratios=[TITLE, rows * cell], squeeze=False)[:, 0]
    title = f"Same prompt, same noise: before training (left) and after {updates} updates (right)"
    top.text(0.5, 0.62, title, ha="center", fontsize=13 if columns > 1 else 8)
    if any(drawn.right is not None for pair in pairs for drawn in pair):
        for x, align, words_of_it, right in ((0.49, "right", "frame: right", True), (0.51, "left", "wrong", False)):
            top.text(x, 0.25, words_of_it, color=FRAMES[right], ha=align, fontsize=10)
    grid = body.subfigures(rows, columns, squeeze=False)
    for place, (pair, lines) in enumerate(zip(pairs, words, strict=True)):
        part: SubFigure = grid[place // columns][place % columns]
        part.subplots_adjust(left=0.03, right=0.97, bottom=foot / cell, top=1 - HEAD / cell, wspace=0.08)
        # parse_math=False: prompts and reasoning may hold dollar signs.
        prompt = "\n".join(_lines(pair[0].prompt, 2 * WIDTH, 2))
        part.text(0.5, 1 - (HEAD - 0.1) / cell, prompt, ha="center", fontsize=10, weight="bold", parse_math=False)
        for axes, drawn, text in zip(part.subplots(1, 2), pair, lines, strict=True):
            axes.imshow(drawn.pixels_HWC, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=FRAMES[drawn.right], linewidth=3)
            axes.set_xlabel("\n".join(text), fontsize=8, parse_math=False)
    canvas.draw()
    with atomic_file(file) as stream:
        figure.savefig(stream, format="png", dpi=100)
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _lines(text: str, width: int, most: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), width, max_lines=most, placeholder=" ...")
