"""From the run folders of a finished study to `table.md`, `table.json` and `figure.png`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from project.study.evaluations import read_pair
from project.study.figure import draw, read_curve
from project.study.plan import Study
from project.study.report import make_report, write_report
from project.study.runs import Run


def compare(study: Study, runs: Sequence[Run], out: Path, missing: Sequence[str] = ()) -> Path:
    """Writes the three files into `out` and returns the path of `table.md`.

    `missing` names runs that the study asks for and `runs` does not hold: the table says so.
    Raises ValueError for a run that is not finished, and as `make_report` does; FileNotFoundError as `read_pair`.
    """
    folders: dict[str, list[Path]] = {arm: [] for arm in study.arms}
    for run in runs:
        folder = run.results()
        if folder is None:
            raise ValueError(f"run {run.name} has no score after training in {run.home}: finish the study's runs first")
        folders[run.arm].append(folder)
    pairs = {arm: [read_pair(folder, study.benchmark) for folder in found] for arm, found in folders.items()}
    seconds = {arm: [_seconds(folder) for folder in found] for arm, found in folders.items()}
    report = make_report(study, pairs, seconds, missing)
    curves = {
        metric: {
            arm: [curve for folder in found if (curve := read_curve(folder / "metrics.csv", metric)) is not None]
            for arm, found in folders.items()
        }
        for metric in study.curves
    }
    draw(report, curves, out / "figure.png")
    return write_report(report, out)


def finished_part(study: Study, runs: Sequence[Run]) -> tuple[Study, list[Run], list[str]]:
    """What of a study can be reported by now: its smaller study, the runs of that, and the names of all others.

    Arms without a finished run are left out, with their comparisons and bars; then seeds that are not finished in
    every arm left, because gains are compared seed by seed. Raises ValueError if nothing remains.
    """
    finished = {(run.arm, run.seed) for run in runs if run.finished() is not None}
    arms = {name: arm for name, arm in study.arms.items() if any(name == done for done, _ in finished)}
    seeds = [seed for seed in study.seeds if all((name, seed) in finished for name in arms)]
    if not arms or not seeds:
        done = ", ".join(run.name for run in runs if (run.arm, run.seed) in finished) or "none"
        raise ValueError(
            f"of the runs of {study.name} {done} are finished: a report needs one seed that is finished in every arm "
            "with a finished run; train on without --report-only, or give the --out or --archive with the runs"
        )
    part = dataclasses.replace(
        study,
        seeds=seeds,
        arms=arms,
        compare=[pair for pair in study.compare if set(pair) <= set(arms)],
        bars=[bar for bar in study.bars if {bar.arm, bar.versus} - {None} <= set(arms)],
    )
    used = [run for run in runs if run.arm in arms and run.seed in seeds]
    return part, used, [run.name for run in runs if run not in used]


def _seconds(folder: Path) -> float:
    return float(json.loads((folder / "results.json").read_text(encoding="utf-8"))["seconds"])
