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
    colours = {arm: f"C{n}" for n, arm in enumerate(report.efforts)}
    height = max(3.2 * len(curves), 1.5 + 0.2 * len(report.lines) * len(report.efforts))
    figure = Figure(figsize=(14 if curves else 9, height), layout="constrained")
    columns = 3 if curves else 2
    grid = figure.add_gridspec(max(1, len(curves)), columns, width_ratios=[1.2, 1, 1][:columns])
    levels = figure.add_subplot(grid[:, 0])
    _levels(levels, report, colours)
    _gains(figure.add_subplot(grid[:, 1], sharey=levels), report, colours)
    for row, (metric, arms) in enumerate(curves.items()):
        _curves(figure.add_subplot(grid[row, 2]), metric, arms, colours)
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
    """Per measure and arm a hollow dot before and a filled one after."""
    for place, line in enumerate(report.lines.values()):
        for arm, height in _heights(place, report).items():
            colour = colours[arm]
            _dot(axes, line.before[arm], height - 0.05, colour, "white", f"{arm}, before" if place == 0 else None)
            _dot(axes, line.after[arm], height + 0.05, colour, colour, f"{arm}, after" if place == 0 else None)
    axes.set_yticks(range(len(report.lines)), list(report.lines))
    axes.set_ylim(len(report.lines) - 0.5, -0.5)
    axes.set_xlabel("percentage points, 95% interval")
    axes.set_title(f"{report.name}: before and after, {len(report.seeds)} seeds")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize="small")


def _gains(axes: Axes, report: Report, colours: Mapping[str, str]) -> None:
    for place, line in enumerate(report.lines.values()):
        for arm, height in _heights(place, report).items():
            _dot(axes, line.gain[arm], height, colours[arm], colours[arm], None)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.tick_params(labelleft=False)
    axes.set_xlabel("percentage points, 95% interval of pairs")
    axes.set_title("gain")
    axes.grid(axis="x", alpha=0.3)


def _heights(place: int, report: Report) -> dict[str, float]:
    """Where the arms of the measure at `place` are drawn."""
    number = len(report.efforts)
    return {arm: place + 0.7 * ((n + 0.5) / number - 0.5) for n, arm in enumerate(report.efforts)}


def _dot(axes: Axes, value: Interval, height: float, colour: str, fill: str, label: str | None) -> None:
    # The mean of a skewed distribution may lie outside its interval: no bar is shorter than nothing.
    bars = np.maximum([[value.mean - value.low], [value.high - value.mean]], 0.0)
    axes.errorbar(
        value.mean,
        height,
        xerr=bars,
        label=label,
        fmt="o",
        markersize=4,
        color=colour,
        markerfacecolor=fill,
        linewidth=1,
    )


def _curves(axes: Axes, metric: str, arms: Mapping[str, Sequence[Curve]], colours: Mapping[str, str]) -> None:
    for arm, runs in arms.items():
        for n, (steps, values) in enumerate(runs):
            axes.plot(steps, smoothed(values), color=colours[arm], linewidth=1, label=arm if n == 0 else None)
    axes.set_xlabel("update")
    axes.set_title(f"{metric}, moving mean of {SMOOTHING}")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
