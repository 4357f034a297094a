"""One checkpoint under several settings: figures by guidance, weights and round, in a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from project.benchmarks.pictures.report import ORACLE, markdown
from project.benchmarks.pictures.run import RESULTS
from project.benchmarks.scoring import percent
from project.core.atomic_files import atomic_file, write_atomically
from project.core.json_files import read_object

FIRST = "first"
"""Column of the first pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A setting: with guidance (`on`) or without (`off`), and which weights."""

    guidance: str
    weights: str

    @property
    def name(self) -> str:
        return f"guidance_{self.guidance}-{self.weights}"


Rounds = dict[str, float | None]
"""Round -> headline in [0, 1], `first` for the first pictures, `ROUND, oracle` with the oracle's gate."""


def read_arm(folder: Path) -> dict[str, Rounds]:
    """Name of a benchmark in the run -> its rounds, of the newest results of an experiment's folder.

    Raises FileNotFoundError without any, and ValueError for a file of results that is broken.
    """
    files = sorted((folder / "benchmarks").glob(f"*/{RESULTS}"), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        raise FileNotFoundError(
            f"{folder / 'benchmarks'} has no {RESULTS}: name published benchmarks in the configuration, e.g. "
            "--config configs/benchmarks/all.yaml"
        )
    found = {}
    for file in files:  # A newer one takes the place of an older one of the same benchmark.
        results = read_object(file, "results of a benchmark")
        rounds: Rounds = {FIRST: results["overall"]}
        for name, of_round in results.get("rounds", {}).items():
            rounds[name] = of_round["overall"]
            rounds[f"{name}, oracle"] = of_round["oracle"]["overall"]
        found[file.parent.name.rpartition("-")[0]] = rounds  # Its name in the run: see `PublishedBenchmark`.
    return found


def write_matrix(out: Path, arms: Mapping[Arm, Mapping[str, Rounds]]) -> str:
    """Writes matrix.md, matrix.json and matrix.png, and gives the table. Raises OSError naming the file."""
    columns = list(dict.fromkeys(name for arm in arms.values() for rounds in arm.values() for name in rounds))
    rows: list[tuple[str, ...]] = [("benchmark", "guidance", "weights", *columns)]
    for benchmark in dict.fromkeys(name for arm in arms.values() for name in arm):
        for arm, found in arms.items():
            rounds = found.get(benchmark, {})
            rows.append((benchmark, arm.guidance, arm.weights, *(percent(rounds.get(name)) for name in columns)))
    oracle = f"\n\n{ORACLE}" if any("oracle" in name for name in columns) else ""
    table = "\n".join(markdown(rows)) + oracle + "\n"
    write_atomically(out / "matrix.md", table)
    figures = [{"guidance": arm.guidance, "weights": arm.weights, "benchmarks": found} for arm, found in arms.items()]
    write_atomically(out / "matrix.json", json.dumps(figures, indent=2) + "\n")
    draw_matrix(out / "matrix.png", arms)
    return table


def draw_matrix(file: Path, arms: Mapping[Arm, Mapping[str, Rounds]]) -> None:
    """A panel for each benchmark: its headline [%] round by round, a line for each arm, dashed with the oracle."""
    benchmarks = list(dict.fromkeys(name for found in arms.values() for name in found))
    figure = Figure(figsize=(3.6 * len(benchmarks), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, benchmark in enumerate(benchmarks, start=1):
        axes = figure.add_subplot(1, len(benchmarks), place)
        for arm, found in arms.items():
            _lines(axes, found.get(benchmark, {}), f"guidance {arm.guidance}, {arm.weights}")
        axes.set_title(benchmark)
        axes.set_ylabel("score [%]")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    with atomic_file(file) as stream:
        figure.savefig(stream, format="png", dpi=110)


def _lines(axes: Any, rounds: Rounds, label: str) -> None:
    plain = {name: value for name, value in rounds.items() if value is not None and "oracle" not in name}
    if not plain:
        return
    (line,) = axes.plot([*plain], [100 * value for value in plain.values()], marker="o", label=label)
    oracle = {name.partition(",")[0]: value for name, value in rounds.items() if "oracle" in name and value is not None}
    if oracle:
        # The oracle starts from the same first pictures.
        points = {FIRST: plain[FIRST], **oracle} if FIRST in plain else oracle
        values = [100 * value for value in points.values()]
        axes.plot([*points], values, marker="x", linestyle="--", color=line.get_color(), label=f"{label}, oracle")
