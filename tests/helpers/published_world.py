"""A published benchmark in the official format, with prompts of the embedded world: DPG-Bench's table of questions.

`command` is what a user runs: the embedded model draws it, along a few steps.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from project.benchmarks import dpg
from project.judges.base import JudgeUnavailable
from project.shapes.judge import DetectorJudge
from project.trajectory import Question
from tests.helpers import ROOT


def write_table(file: Path, items: int) -> Path:
    """`dpg_bench.csv` with so many prompts."""
    rows = [json.loads(line) for line in (ROOT / "data/shapes/eval.jsonl").read_text().splitlines()]
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow([*dpg.COLUMNS])
        for n, row in enumerate(rows[:: len(rows) // items][:items]):
            for number, question in enumerate(row["semantic_questions"], start=1):
                parent, kind = int(number > 1), "entity - whole (shape)" if number == 1 else "attribute - color (color)"
                table.writerow([f"item{n}", row["prompt"], number, parent, kind, question["question"]])
    return file


def write_world(folder: Path, items: int = 6, judge: str = "project.shapes.DetectorJudge", **arguments: Any) -> Path:
    """The table and `benchmark.yaml`."""
    write_table(folder / "dpg_bench.csv", items)
    write_benchmark(folder, judge, **arguments)
    return folder


def write_benchmark(
    folder: Path,
    judge: str,
    init_args: dict[str, Any] | None = None,
    kind: str = "project.benchmarks.PublishedBenchmark",
    **arguments: Any,
) -> None:
    """`benchmark.yaml` with a judge of this class, and a benchmark of this `kind`."""
    asked = {"class_path": judge, "init_args": init_args or {}}
    pictures = {"class_path": "project.benchmarks.DPGPictures", "init_args": {"samples": 2, "judge": asked}}
    benchmark = {"pictures": pictures, "items": str(folder / "dpg_bench.csv"), **arguments}
    changes = {
        "benchmarks": [{"class_path": kind, "init_args": benchmark}],
        "data": {"init_args": {"eval_batch_size": 4, "val": None}},
        "trainer": {"limit_val_batches": 1.0, "enable_progress_bar": False, "callbacks": []},
        "model": {"init_args": {"evaluation": {"schedule": {"num_steps": 6}}}},
    }
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(changes))


def command(world: Path, name: str = "mine", *options: str, subcommand: str = "test") -> list[str]:
    """What a user runs: the demo's configuration and the benchmark over it."""
    files = (ROOT / "configs/shapes/demo.yaml", world / "benchmark.yaml")
    configs = [part for file in files for part in ("--config", str(file))]
    return [subcommand, *configs, f"--run.root={world / 'runs'}", f"--run.name={name}", *options]


def found(world: Path, name: str = "mine") -> Path:
    """The one folder of a benchmark that an experiment has."""
    (folder,) = (world / "runs" / name / "benchmarks").iterdir()
    return folder


def written(folder: Path) -> dict[str, bytes]:
    """Pictures and rows: what must be the same however a run came about."""
    files = [*folder.rglob("*.png"), *folder.rglob("rows*.jsonl"), *folder.rglob("verdicts.jsonl")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


class PatchyJudge(DetectorJudge):
    """The embedded world's judge, which does not answer about some prompts, or is away after some calls.

    Args:
        silent: prompts that hold this word get no answer.
        calls: how often it answers before it is away for good; None = always.
    """

    def __init__(self, silent: str = "", calls: int | None = None) -> None:
        super().__init__()
        self.silent, self.calls = silent, calls

    def answer(
        self, images: Sequence[np.ndarray], questions: Sequence[Sequence[Question]], prompts: Sequence[str]
    ) -> list[list[float | None]]:
        if self.calls is not None:
            if not self.calls:
                raise JudgeUnavailable(f"judge {self.name} answers no longer: start it again")
            self.calls -= 1
        said = super().answer(images, questions, prompts)
        return [
            [None] * len(row) if self.silent and self.silent in prompt else row
            for row, prompt in zip(said, prompts, strict=True)
        ]
