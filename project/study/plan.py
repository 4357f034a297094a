"""`Study`: which arms are trained with which seeds, what is compared, and the bars set beforehand."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from project.config_files import unreadable
from project.errors import explain, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way of training.

    Args:
        configs: Configuration files of `fit`; later ones win.
        overrides: Dotted options of `fit`, on top of those of the study.
    """

    configs: list[str]
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """The mean of one outcome of the evaluation, over some sets of prompts; every kind of a set weighs the same.

    Args:
        outcome: Key in the rows of `evaluations/`: a number in [0, 1].
        sets: Sets of prompts to take it on; empty = all.
    """

    outcome: str
    sets: list[str] = field(default_factory=list)


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
    """

    name: str
    seeds: list[int]
    arms: dict[str, Arm]
    measures: dict[str, Measure]
    benchmark: str
    overrides: dict[str, Any] = field(default_factory=dict)
    compare: list[tuple[str, str]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    curves: list[str] = field(default_factory=list)


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
        study: Study = Study(**parser.instantiate(parser.parse_path(str(file))).as_dict())
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
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"{file}: arm {name!r}: an arm's name becomes a folder's, use letters, digits, - and _")
        if not arm.configs:
            raise ValueError(f"{file}: arm {name!r} has no configs: name at least one configuration file")
        for config in arm.configs:
            if not Path(config).is_file():
                raise FileNotFoundError(
                    f"{file}: arm {name!r}: there is no {config} (paths start at the folder you are in, {Path.cwd()})"
                )
    for pair in study.compare:
        _known(file, "compare", pair, study.arms)
    for bar in study.bars:
        _known(file, "bars", [bar.measure], study.measures)
        _known(file, "bars", [bar.arm, *([bar.versus] if bar.versus else [])], study.arms)
        if bar.at_least is None and bar.lower_bound_above is None:
            raise ValueError(f"{file}: the bar on {bar.measure!r} asks nothing: give at_least or lower_bound_above")


def _known(file: Path, key: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"{file}: {key}: there is no {name!r}: {nearest(name, known)}")
