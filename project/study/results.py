"""All that a report takes from the folder of one finished run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from project.study.evaluations import Pair, read_pair

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run measured, and what it took."""

    pairs: Mapping[str, Pair]
    """By benchmark."""
    curves: Mapping[str, Curve]
    """By column of `metrics.csv`: those that it has."""
    updates: int
    seconds: float


def read_result(folder: Path, benchmarks: Iterable[str], columns: Iterable[str]) -> Result:
    """Reads a run folder: `evaluations/`, `metrics.csv` and `results.json`. Raises as `read_pair` does."""
    effort = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    curves = {name: read_curve(folder / "metrics.csv", name) for name in columns}
    return Result(
        pairs={benchmark: read_pair(folder, benchmark) for benchmark in benchmarks},
        curves={name: curve for name, curve in curves.items() if curve is not None},
        updates=int(effort["updates"]),
        seconds=float(effort["seconds"]),
    )


def read_curve(file: Path, column: str) -> Curve | None:
    """Steps and values of a column of `metrics.csv` where it has a finite one; None if it nowhere has."""
    if not file.is_file():
        return None
    with file.open(encoding="utf-8", newline="") as stream:
        points = [(float(row["step"]), float(row[column])) for row in csv.DictReader(stream) if row.get(column)]
    finite = [point for point in points if np.isfinite(point[1])]
    if not finite:
        return None
    steps, values = np.array(finite).T
    return steps, values
