"""From the run folders of a finished study to `table.md`, `table.json` and `figure.png`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from project.study.evaluations import read_pair
from project.study.figure import draw, read_curve
from project.study.plan import Study
from project.study.report import make_report, write_report
from project.study.runs import Run


def compare(study: Study, runs: Sequence[Run], out: Path) -> Path:
    """Writes the three files into `out` and returns the path of `table.md`.

    Raises ValueError for a run that is not finished, and as `make_report` does; FileNotFoundError as `read_pair`.
    """
    folders: dict[str, list[Path]] = {arm: [] for arm in study.arms}
    for run in runs:
        folder = run.results()
        if folder is None:
            raise ValueError(f"run {run.name} has no score after training in {run.home}: finish the study's runs first")
        folders[run.arm].append(folder)
    pairs = {arm: [read_pair(folder, study.benchmark) for folder in found] for arm, found in folders.items()}
    report = make_report(study, pairs, {arm: [_seconds(folder) for folder in found] for arm, found in folders.items()})
    curves = {
        metric: {
            arm: [curve for folder in found if (curve := read_curve(folder / "metrics.csv", metric)) is not None]
            for arm, found in folders.items()
        }
        for metric in study.curves
    }
    draw(report, curves, out / "figure.png")
    return write_report(report, out)


def _seconds(folder: Path) -> float:
    return float(json.loads((folder / "results.json").read_text(encoding="utf-8"))["seconds"])
