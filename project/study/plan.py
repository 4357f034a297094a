"""`Study`: which arms are trained with which seeds, what is compared, and the bars set beforehand."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from project.core.config_files import unknown_empty_key, unreadable
from project.core.errors import explain
from project.core.nearest import nearest

Setting = str | bool | int | float | list | dict | None  # type: ignore[type-arg]
"""Value of an option; one that names a class path stays as it is written (of `Any`, jsonargparse would build it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way of training.

    Args:
        configs: Configuration files of `fit`; later ones win.
        overrides: Dotted options of `fit`, on top of those of the study.
    """

    configs: list[str]
    overrides: dict[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """The mean of one outcome of the evaluation, over some sets of prompts; every kind of a set weighs the same.

    Args:
        outcome: Key in the rows of `evaluations/`: a number in [0, 1].
        minus: Outcome that is taken off, row by row: "picture@round1" minus "picture" is what a round of refinement
            is worth, in [-1, 1].
        given: Outcomes and their values: the mean is over those rows alone. "picture@round1" given {picture: 0} is the
            share of wrong pictures that a round of refinement puts right. Kinds weigh by how often it is given.
        sets: Sets of prompts to take it on; empty = all.
        arms: Arms to take it on; empty = all. The rows of the others need not have the outcome.
        benchmark: Prefix of the files in `evaluations/` that it is read from; none = the study's.
    """

    outcome: str
    minus: str | None = None
    given: dict[str, float] = field(default_factory=dict)
    sets: list[str] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    benchmark: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What the gain of an arm was to reach [percentage points], alone or above the gain of another arm.

    Args:
        measure: Name of the measure.
        arm: Whose gain.
        versus: Arm whose gain is taken off; none = the gain itself.
        at_least: Least mean.
        lower_bound_above: What the lower end of the 95% interval must exceed.
    """

    measure: str
    arm: str
    versus: str | None = None
    at_least: float | None = None
    lower_bound_above: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What one table of the report and its figure show; null = all that there is for its arms.

    Args:
        arms: Arms, in this order.
        measures: Measures, in this order.
        compare: Pairs of its arms.
        curves: Curves, of those of the study.
        means: Means, of those of the study.
    """

    arms: list[str] | None = None
    measures: list[str] | None = None
    compare: list[tuple[str, str]] | None = None
    curves: list[str] | None = None
    means: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table with nothing left open."""

    arms: list[str]
    measures: list[str]
    compare: list[tuple[str, str]]
    curves: list[str]
    means: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A comparison of arms.

    Args:
        name: Name of the study.
        seeds: Seeds; every arm is trained with each.
        arms: Arms by name.
        measures: Measures by name, in the order of the table.
        benchmark: Prefix of the files in `evaluations/` that are read: BENCHMARK_UPDATE.jsonl.
        overrides: Dotted options of `fit` for all arms.
        compare: Pairs of arms; the table tells how much more the first gains.
        bars: What was to be reached.
        curves: Columns of `metrics.csv` to draw.
        means: Columns of `metrics.csv` whose mean over all updates is told for every arm.
        tables: Tables of the report by name; empty = one of everything.
    """

    name: str
    seeds: list[int]
    arms: dict[str, Arm]
    measures: dict[str, Measure]
    benchmark: str
    overrides: dict[str, Setting] = field(default_factory=dict)
    compare: list[tuple[str, str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    curves: list[str] = field(default_factory=list)
    means: list[str] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Columns of `metrics.csv` that the report needs."""
        return list(dict.fromkeys([*self.curves, *self.means]))

    @property
    def compared(self) -> list[tuple[str, str]]:
        """Pairs of arms, those of the bars too."""
        versus = [(bar.arm, bar.versus) for bar in self.bars if bar.versus]
        return list(dict.fromkeys([*self.compare, *versus]))

    def arms_of(self, measure: str) -> list[str]:
        """Arms that a measure is taken on."""
        return [arm for arm in self.arms if not self.measures[measure].arms or arm in self.measures[measure].arms]

    def benchmarks_of(self, arm: str) -> list[str]:
        """Prefixes of the files in `evaluations/` that the measures of an arm are read from."""
        taken = [measure for name, measure in self.measures.items() if arm in self.arms_of(name)]
        return list(dict.fromkeys(measure.benchmark or self.benchmark for measure in taken))

    def sections(self) -> dict[str, Section]:
        """The tables of the report by name; the one of everything has the name ""."""
        return {name: self._section(table) for name, table in (self.tables or {"": Table()}).items()}

    def part(self, arms: Collection[str], seeds: Collection[int]) -> Study:
        """The study of some of its arms and seeds, with all that can still be asked of them."""
        measures = {
            name: replace(measure, arms=[arm for arm in measure.arms if arm in arms])
            for name, measure in self.measures.items()
            if set(self.arms_of(name)) & set(arms)
        }
        tables = {}
        for name, section in self.sections().items():
            left = [arm for arm in section.arms if arm in arms]
            shown = [measure for measure in section.measures if set(self.arms_of(measure)) & set(left)]
            if name in self.tables and shown:
                pairs = [pair for pair in section.compare if set(pair) <= set(left)]
                tables[name] = replace(self.tables[name], arms=left, measures=shown, compare=pairs)
        return replace(
            self,
            arms={name: arm for name, arm in self.arms.items() if name in arms},
            seeds=[seed for seed in self.seeds if seed in seeds],
            measures=measures,
            compare=[pair for pair in self.compare if set(pair) <= set(arms)],
            bars=[bar for bar in self.bars if {bar.arm, bar.versus} - {None} <= set(arms)],
            tables=tables,
        )

    def _section(self, table: Table) -> Section:
        arms = list(self.arms) if table.arms is None else table.arms
        measures = [name for name in self.measures if set(self.arms_of(name)) & set(arms)]
        pairs = [pair for pair in self.compared if set(pair) <= set(arms)]
        return Section(
            arms=arms,
            measures=measures if table.measures is None else table.measures,
            compare=pairs if table.compare is None else table.compare,
            curves=self.curves if table.curves is None else table.curves,
            means=self.means if table.means is None else table.means,
        )


def read_study(file: str | Path) -> Study:
    """Reads and checks a study.

    Raises FileNotFoundError for a file that is missing (the study's own, or a configuration of an arm), ValueError
    for whatever else is wrong with it.
    """
    from jsonargparse import ArgumentParser

    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no study {file}: check --config (now in {Path.cwd()})")
    if problem := unreadable([file]):
        raise ValueError(problem)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Study)
    try:
        parsed = parser.parse_path(str(file))
        if problem := unknown_empty_key([file], parsed):
            raise ValueError(problem)
        study: Study = Study(**parser.instantiate(parsed).as_dict())
    except ArgumentError as error:
        options = [name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")]
        message = explain(str(error), [file], options)
        raise ValueError(message if str(file) in message else f"{file}: {message}") from error
    _check(study, file)
    return study


def _check(study: Study, file: Path) -> None:
    for name in ("seeds", "arms", "measures"):
        if not getattr(study, name):
            raise ValueError(f"{file}: {name} is empty: name at least one")
    if len(set(study.seeds)) < len(study.seeds):
        raise ValueError(f"{file}: seeds = {study.seeds} holds one twice: runs of the same seed are the same run")
    for name, arm in study.arms.items():
        _file_name(file, "arm", name)
        if not arm.configs:
            raise ValueError(f"{file}: arm {name!r} has no configs: name at least one configuration file")
        for config in arm.configs:
            if not Path(config).is_file():
                raise FileNotFoundError(
                    f"{file}: arm {name!r}: there is no {config} (paths start at the folder you are in, {Path.cwd()})"
                )
    for name, measure in study.measures.items():
        _known(file, f"measure {name!r}: arms", measure.arms, study.arms)
    for name in study.arms:
        if not study.benchmarks_of(name):
            raise ValueError(f"{file}: no measure is taken on arm {name!r}: add it to the `arms` of one")
    for pair in study.compare:
        _known(file, "compare", pair, study.arms)
    for name, table in study.tables.items():
        _check_table(study, file, name, table)
    for bar in study.bars:
        arms = [bar.arm, *([bar.versus] if bar.versus else [])]
        _known(file, "bars", [bar.measure], study.measures)
        _known(file, "bars", arms, study.arms)
        _known(file, f"bars: arms of measure {bar.measure!r}", arms, study.arms_of(bar.measure))
        if bar.at_least is None and bar.lower_bound_above is None:
            raise ValueError(f"{file}: the bar on {bar.measure!r} asks nothing: give at_least or lower_bound_above")


def _check_table(study: Study, file: Path, name: str, table: Table) -> None:
    _file_name(file, "table", name)
    where = f"table {name!r}"
    _known(file, f"{where}: arms", table.arms or (), study.arms)
    _known(file, f"{where}: measures", table.measures or (), study.measures)
    _known(file, f"{where}: curves", table.curves or (), study.curves)
    _known(file, f"{where}: means", table.means or (), study.means)
    section = study.sections()[name]
    for key in ("arms", "measures"):
        if not getattr(section, key):
            raise ValueError(f"{file}: {where}: {key} is empty: name at least one, or leave it out for all")
    for pair in section.compare:
        _known(file, f"{where}: compare", pair, section.arms)
    for measure in section.measures:
        if not set(study.arms_of(measure)) & set(section.arms):
            raise ValueError(
                f"{file}: {where}: measure {measure!r} is taken on none of its arms, but on "
                f"{', '.join(study.arms_of(measure))}"
            )


def _file_name(file: Path, kind: str, name: str) -> None:
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"{file}: {kind} {name!r}: the name becomes that of files, use letters, digits, - and _")


def _known(file: Path, key: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"{file}: {key}: there is no {name!r}: {nearest(name, known)}")
