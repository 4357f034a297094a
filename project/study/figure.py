"""The figure of a study: every measure before and after, and the curves of the runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from project.statistics import Interval
from project.study.report import Report

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values."""
SMOOTHING = 10
"""Updates of the moving mean that the curves show."""


def draw(report: Report, curves: Mapping[str, Mapping[str, Sequence[Curve]]], file: Path) -> None:
    """Writes the figure; `curves` holds, by metric and arm, one curve a seed."""
    rows = max(1, len(curves))
    figure = Figure(
        figsize=(12, max(3.2 * rows, 1.5 + 0.28 * len(report.lines) * len(report.efforts))), layout="constrained"
    )
    colours = {arm: f"C{n}" for n, arm in enumerate(report.efforts)}
    if not curves:
        _levels(figure.subplots(), report, colours)
    else:
        grid = figure.add_gridspec(rows, 2, width_ratios=[1.3, 1])
        _levels(figure.add_subplot(grid[:, 0]), report, colours)
        for row, (metric, arms) in enumerate(curves.items()):
            _curves(figure.add_subplot(grid[row, 1]), metric, arms, colours)
    figure.savefig(file, dpi=120)


def read_curve(file: Path, metric: str) -> Curve | None:
    """Steps and values of a column of `metrics.csv`; None if the file or the column is not there."""
    if not file.is_file():
        return None
    with file.open(encoding="utf-8", newline="") as stream:
        points = [(float(row["step"]), float(row[metric])) for row in csv.DictReader(stream) if row.get(metric)]
    if not points:
        return None
    steps, values = np.array(points).T
    return steps, values


def smoothed(values: NDArray[np.float64], width: int = SMOOTHING) -> NDArray[np.float64]:
    """Mean of each value and the `width - 1` before it (of fewer at the beginning)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), dtype=np.float64)


def _levels(axes: Axes, report: Report, colours: Mapping[str, str]) -> None:
    """Per measure and arm a hollow dot before and a filled one after, with their intervals."""
    arms = list(report.efforts)
    for place, line in enumerate(report.lines.values()):
        for n, arm in enumerate(arms):
            height = place + 0.7 * ((n + 0.5) / len(arms) - 0.5)
            for interval, fill in ((line.before[arm], "white"), (line.after[arm], colours[arm])):
                axes.errorbar(
                    interval.mean,
                    height,
                    xerr=_arms(interval),
                    fmt="o",
                    markersize=4,
                    color=colours[arm],
                    markerfacecolor=fill,
                    linewidth=1,
                    label=f"{arm}, {'before' if fill == 'white' else 'after'}" if place == 0 else None,
                )
    axes.set_yticks(range(len(report.lines)), list(report.lines))
    axes.invert_yaxis()
    axes.set_xlabel("percentage points, 95% interval")
    axes.set_title(f"{report.name}: before and after, {len(report.seeds)} seeds")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize="small")


def _arms(interval: Interval) -> NDArray[np.float64]:
    """Lengths of the error bars [2, 1]; the mean of a skewed distribution may lie outside its interval."""
    return np.maximum([[interval.mean - interval.low], [interval.high - interval.mean]], 0.0)


def _curves(axes: Axes, metric: str, arms: Mapping[str, Sequence[Curve]], colours: Mapping[str, str]) -> None:
    for arm, runs in arms.items():
        for n, (steps, values) in enumerate(runs):
            axes.plot(steps, smoothed(values), color=colours[arm], linewidth=1, label=arm if n == 0 else None)
    axes.set_xlabel("update")
    axes.set_title(f"{metric}, moving mean of {SMOOTHING}")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
