"""Runs of a benchmark beside each other: what their folders say, and how sure a difference is.

A run's folder is what `score` writes: `results.json` and `verdicts.jsonl` are read, see `pictures`. The
difference of two runs is taken over the items that both have verdicts on. Its interval is a paired bootstrap: items are
drawn with replacement, the same for both runs and with all of their pictures, and the overall figure is computed anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks.pictures.base import Counted
from project.benchmarks.pictures.run import RESULTS
from project.benchmarks.pictures.verdicts import SHEET, VERDICTS
from project.benchmarks.scoring import MODES, Mode
from project.core.json_files import read_object, read_rows
from project.core.statistics import resampled_counts

SCORE = "give the command that made it again: `score` judges nothing twice"
NEEDED = ("benchmark", "manifest", "coverage", *MODES)
"""Keys of the results of a benchmark of pictures; `fit` and `validate` write other files of that name."""
JUDGING = (
    *("items_sha256", "items_version", "edition", "languages", "groups"),
    *("label", "judge", "detector", "colors", "protocol", "template"),
)
"""Keys of a manifest that must be the same for two figures to mean the same."""
COVERING = ("asked", "samples")
"""Keys of a manifest about how much was judged. Where they differ, only items that both runs have can be compared."""
AGREES = 2e-4
"""Official figures are rounded to four places, some of them several times."""
DETECTIONS = re.compile(r", detections with SHA-256 [0-9a-f]+")
"""What a manifest says of detections from a file: they are those of the pictures, and differ as these do."""
ORACLE = "oracle"
MARK = f" ({ORACLE})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a comparison needs of a judged picture."""

    item: str
    worth: float
    counted: Counted


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRun:
    """What the folder of a run says."""

    name: str
    folder: Path
    results: Mapping[str, Any]
    verdicts: tuple[Verdict, ...] | None
    """None if the folder has no file of them."""

    @property
    def benchmark(self) -> str:
        return str(self.results["benchmark"])

    @property
    def manifest(self) -> dict[str, Any]:
        """How it was made; what is nested has slashes in its name."""
        return {name.removesuffix(MARK): value for name, value in flattened(self.results["manifest"]).items()}

    @property
    def oracle(self) -> bool:
        """Whether pictures were chosen by what the benchmark itself said of them."""
        return any(key.rpartition("/")[2] == "gate" and value == ORACLE for key, value in self.manifest.items())

    @property
    def title(self) -> str:
        """The name for tables; it says where an oracle had a hand in the figures."""
        return f"{self.name}{MARK}" if self.oracle else self.name

    @property
    def missing(self) -> tuple[str, ...]:
        """Items, or pictures, that the figures lack."""
        return tuple(self.results["coverage"]["strict"]["missing"])

    @property
    def sheet(self) -> Path | None:
        """The contact sheet, if there is one."""
        return file if (file := self.folder / SHEET).is_file() else None

    def figures(self, mode: Mode) -> dict[str, float | None]:
        """Name, as in `reference_numbers.yaml`, -> figure; None where there is none."""
        rounds = self.results.get("rounds")
        nested = {**self.results[mode], **({"rounds": rounds} if isinstance(rounds, Mapping) else {})}
        return {name: _number(value) for name, value in flattened(nested).items() if _may_be_figure(value)}

    def headline(self, mode: Mode) -> float | None:
        """The one overall figure of a mode."""
        return _number(self.results.get("headlines", {}).get(mode))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two figures over the items that both runs have, and how far they are apart, on the benchmark's scale."""

    name: str
    first: float
    other: float
    low: float
    high: float
    """The 95% interval of other - first."""

    @property
    def mean(self) -> float:
        return self.other - self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Those of a run to another one."""

    items: int
    """That both have verdicts on."""
    of: Mode | None
    """The mode whose overall figure it is; None if it is the mean worth of the pictures."""
    lines: tuple[Difference, ...]
    """The whole, then the outermost groups."""


def read_runs(folders: Sequence[Path]) -> dict[str, list[JudgedRun]]:
    """Benchmark -> runs, in the order of the folders: each is that of a run, or holds some.

    Raises FileNotFoundError for a folder that is none or holds no run, and ValueError for one given twice, for results
    of another kind or form (with file), and for verdicts of another form (with file:line).
    """
    found: list[tuple[Path, Path, dict[str, Any]]] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: give one that `python -m project score --out` made")
        inner = [(folder, one, results) for one in _folders(folder) if (results := _results(one)) is not None]
        if not inner:
            raise FileNotFoundError(
                f"{folder} holds no {RESULTS} of a benchmark of pictures: give a folder that `python -m project score "
                "--out` made, or one that holds such folders"
            )
        found += inner
    places = [one.resolve() for _, one, _ in found]
    if twice := [one for place, (_, one, _) in zip(places, found, strict=True) if places.count(place) > 1]:
        raise ValueError(f"{twice[0]} is given twice: leave one out")
    runs: dict[str, list[JudgedRun]] = {}
    for benchmark in dict.fromkeys(str(results["benchmark"]) for _, _, results in found):
        these = [entry for entry in found if entry[2]["benchmark"] == benchmark]
        for name, (_, one, results) in zip(_names(these), these, strict=True):
            verdicts = _verdicts(one / VERDICTS)
            run = JudgedRun(name=name, folder=one, results=results, verdicts=verdicts)
            runs.setdefault(benchmark, []).append(run)
    return runs


def flattened(nested: Mapping[str, Any], before: str = "", mark: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a/b": 1}; names of what stands beside or below `gate: oracle` end in "(oracle)"."""
    flat: dict[str, Any] = {}
    mark = MARK if nested.get("gate") == ORACLE else mark
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{before}{key}/", mark)
        else:
            flat[f"{before}{key}{mark}"] = value
    return flat


def differing(first: JudgedRun, other: JudgedRun, keys: Sequence[str]) -> list[str]:
    """Those of the keys that the manifests do not agree on."""
    a, b = first.manifest, other.manifest
    return [key for key in keys if DETECTIONS.sub("", str(a.get(key))) != DETECTIONS.sub("", str(b.get(key)))]


def overall(verdicts: Sequence[Verdict], by_worth: bool = False) -> float | None:
    """The overall figure of verdicts as `Counted` says, or the mean worth; None without verdicts."""
    return _Figure(_as_counted(verdicts, by_worth)).value() if verdicts else None


def differences(first: JudgedRun, other: JudgedRun, resamples: int = 10_000, seed: int = 0) -> Differences | None:
    """Of the overall figure if the verdicts of both runs give it back, else of the mean worth.

    None if one has no verdicts, or if they have no item in common.
    """
    if first.verdicts is None or other.verdicts is None:
        return None
    common = {verdict.item for verdict in first.verdicts} & {verdict.item for verdict in other.verdicts}
    if not common:
        return None
    of = next((mode for mode in MODES if all(_gives_back(run, mode) for run in (first, other))), None)
    both = [
        _as_counted([verdict for verdict in run.verdicts or () if verdict.item in common], by_worth=of is None)
        for run in (first, other)
    ]
    groups = list(dict.fromkeys(counted.groups[0] for counted in both[0] if counted.groups))
    parts = {"overall" if of else "mean worth": both}
    if len(groups) > 1:
        parts |= {name: [[one for one in counted if one.groups[0] == name] for counted in both] for name in groups}
    lines = []
    for name, (a, b) in parts.items():
        low, high = _interval(a, b, resamples, seed)
        lines.append(Difference(name=name, first=_Figure(a).value(), other=_Figure(b).value(), low=low, high=high))
    return Differences(items=len(common), of=of, lines=tuple(lines))


# --------------------------------------------------------------------------- helpers


class _Figure:
    """The figure of some counted pictures, also of units that are drawn several times."""

    def __init__(self, counted: Sequence[Counted]) -> None:
        self.units = sorted({one.unit for one in counted})
        self.leaves = sorted({one.groups for one in counted})
        unit, leaf = ({name: n for n, name in enumerate(names)} for names in (self.units, self.leaves))
        self.right_UL = np.zeros((len(self.units), len(self.leaves)))
        self.asked_UL = np.zeros_like(self.right_UL)
        for one in counted:
            place = unit[one.unit], leaf[one.groups]
            self.right_UL[place] += one.right
            self.asked_UL[place] += one.asked
        self.weight_L = _weights({one.groups: one.weight for one in counted}, self.leaves)

    def value(self) -> float:
        return float(self.values(np.ones((1, len(self.units))))[0])

    def values(self, count_RU: np.ndarray) -> np.ndarray:
        """The figure [R] where each unit is there so often."""
        figure: np.ndarray = (count_RU @ self.right_UL) / (count_RU @ self.asked_UL) @ self.weight_L
        return figure

    @property
    def strata(self) -> list[str]:
        """Of each unit: the groups that it has pictures in. Every group keeps pictures in every resample."""
        return [str(np.flatnonzero(asked_L).tolist()) for asked_L in self.asked_UL]


def _weights(weights: Mapping[tuple[str, ...], float], leaves: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Of each innermost group in the overall figure [L]: groups beside each other weigh the same, but for innermost
    ones with weights."""
    shares = []
    for leaf in leaves:
        share = 1.0
        for depth in range(1, len(leaf) + 1):
            above = leaf[: depth - 1]
            beside = {other[:depth]: weights.get(other[:depth], 1.0) for other in leaves if other[: depth - 1] == above}
            share *= beside[leaf[:depth]] / sum(beside.values())
        shares.append(share)
    return np.array(shares)


def _interval(first: Sequence[Counted], other: Sequence[Counted], resamples: int, seed: int) -> tuple[float, float]:
    """The 95% interval of other - first; both are of the same items."""
    a, b = _Figure(first), _Figure(other)
    drawn = [b.values(count_RU) - a.values(count_RU) for count_RU in resampled_counts(a.strata, resamples, seed)]
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return float(low), float(high)


def _as_counted(verdicts: Sequence[Verdict], by_worth: bool) -> list[Counted]:
    if not by_worth:
        return [verdict.counted for verdict in verdicts]
    return [Counted(right=verdict.worth, unit=verdict.counted.unit) for verdict in verdicts]


def _gives_back(run: JudgedRun, mode: Mode) -> bool:
    wanted, found = run.headline(mode), overall(run.verdicts or ())
    return wanted is not None and found is not None and abs(wanted - found) <= AGREES


def _folders(folder: Path) -> Iterator[Path]:
    """It, or those in it, that hold results."""
    if (folder / RESULTS).is_file():
        yield folder
        return
    yield from sorted(file.parent for file in folder.rglob(RESULTS))


def _results(folder: Path) -> dict[str, Any] | None:
    """None if they are not those of a benchmark of pictures. Raises ValueError for a file that is broken."""
    file = folder / RESULTS
    results = read_object(file, "a folder of scores")
    if not {"benchmark", "manifest"} <= results.keys():
        return None
    strange = [key for key in NEEDED if key not in results or not isinstance(results[key], dict | str)]
    if strange:
        raise ValueError(f"{file}: lacks {strange[0]!r}, or holds something else there: {SCORE}")
    if not isinstance(results["coverage"].get("strict", {}).get("missing"), list):
        raise ValueError(f"{file}: 'coverage' does not say what is missing: {SCORE}")
    return results


def _names(found: Sequence[tuple[Path, Path, dict[str, Any]]]) -> list[str]:
    """A name for each run of a benchmark: the folder given, with as much of the path as tells them apart."""
    given = [folder.resolve() for folder, _, _ in found]
    parts = []
    for folder, inner, _ in found:
        several = given.count(folder.resolve()) > 1
        parts.append((inner if several else folder).resolve().parts)
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            break
    return names


def _verdicts(file: Path) -> tuple[Verdict, ...] | None:
    """None without the file. Raises ValueError (file:line)."""
    if not file.is_file():
        return None
    verdicts = []
    for place, row in read_rows(file):
        try:
            counted = row["counted"]
            verdict = Verdict(
                item=str(row["id"]),
                worth=float(row["worth"]),
                counted=Counted(**{**counted, "groups": tuple(counted["groups"])}),
            )
            numbers = [verdict.worth, *(float(counted[key]) for key in ("right", "asked", "weight"))]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{place}: is no verdict ({error!r}): {SCORE}") from None
        if not all(map(math.isfinite, numbers)) or verdict.counted.asked <= 0:
            raise ValueError(f"{place}: has a worth or points that are no numbers, or asks for nothing: {SCORE}")
        verdicts.append(verdict)
    return tuple(verdicts)


def _may_be_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _number(value: Any) -> float | None:
    """None for what is not measured: null, and NaN of older files."""
    return float(value) if value is not None and math.isfinite(value) else None
