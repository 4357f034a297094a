"""The figure of a table: every measure before and after, and the curves of the runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from project.core.atomic_files import atomic_file
from project.core.statistics import Interval
from project.study.report import Line, Report
from project.study.results import Curve, Result

SMOOTHING = 10
"""Updates of the moving mean that the curves show."""


def draw(report: Report, name: str, results: Mapping[str, Sequence[Result]], file: Path) -> None:
    """Writes the figure of the table `name`; `results` hold, by arm, the curves of its seeds."""
    section = report.sections[name]
    lines = {measure: report.lines[measure] for measure in section.measures}
    colours = {arm: f"C{n}" for n, arm in enumerate(section.arms)}
    curves = len(section.curves)
    height = max(3.2 * curves, 1.5 + 0.2 * len(lines) * len(colours))
    figure = Figure(figsize=(14 if curves else 9, height), layout="constrained")
    columns = 3 if curves else 2
    grid = figure.add_gridspec(max(1, curves), columns, width_ratios=[1.2, 1, 1][:columns])
    levels = figure.add_subplot(grid[:, 0])
    _levels(levels, lines, colours)
    what = f"{report.name}, {name.replace('_', ' ')}" if name else report.name
    figure.suptitle(f"{what}: {len(report.seeds)} seed{'s' if len(report.seeds) > 1 else ''}")
    levels.set_title("before (hollow) and after")
    _gains(figure.add_subplot(grid[:, 1], sharey=levels), lines, colours)
    figure.legend(
        *levels.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(colours), 9), fontsize="small"
    )
    for row, metric in enumerate(section.curves):
        of_seeds = {arm: [run.curves[metric] for run in results[arm] if metric in run.curves] for arm in section.arms}
        _curves(figure.add_subplot(grid[row, 2]), metric, of_seeds, colours)
    with atomic_file(file) as stream:
        figure.savefig(stream, dpi=120, format="png")


def smoothed(values: NDArray[np.float64], width: int = SMOOTHING) -> NDArray[np.float64]:
    """Mean of each value and the `width - 1` before it (of fewer at the beginning)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), dtype=np.float64)


def _levels(axes: Axes, lines: Mapping[str, Line], colours: Mapping[str, str]) -> None:
    """Per measure and arm a hollow dot before and a filled one after."""
    labelled: set[str] = set()
    for place, line in enumerate(lines.values()):
        for arm, height in _heights(place, line, colours).items():
            colour, first = colours[arm], arm not in labelled
            _dot(axes, line.before[arm], height - 0.05, colour, "white", None)
            _dot(axes, line.after[arm], height + 0.05, colour, colour, arm if first else None)
            labelled.add(arm)
    axes.set_yticks(range(len(lines)), list(lines))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel("percentage points, 95% interval")
    axes.grid(axis="x", alpha=0.3)


def _gains(axes: Axes, lines: Mapping[str, Line], colours: Mapping[str, str]) -> None:
    for place, line in enumerate(lines.values()):
        for arm, height in _heights(place, line, colours).items():
            _dot(axes, line.gain[arm], height, colours[arm], colours[arm], None)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.tick_params(labelleft=False)
    axes.set_xlabel("percentage points, 95% interval of pairs")
    axes.set_title("gain")
    axes.grid(axis="x", alpha=0.3)


def _heights(place: int, line: Line, arms: Collection[str]) -> dict[str, float]:
    """Where those of the arms that have the measure at `place` are drawn: an arm at the same height in all."""
    return {arm: place + 0.7 * ((n + 0.5) / len(arms) - 0.5) for n, arm in enumerate(arms) if arm in line.gain}


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
        for steps, values in runs:
            axes.plot(steps, smoothed(values), color=colours[arm], linewidth=1)
    axes.set_xlabel("update")
    axes.set_title(f"{metric}, moving mean of {SMOOTHING}")
    axes.grid(alpha=0.3)
