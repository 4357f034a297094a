"""What the runs of a study measured, prompt by prompt: the files `evaluations/BENCHMARK_UPDATE.jsonl` -> arrays.

A row is {"id", "set", "kind", OUTCOME: number in [0, 1] or null, ...}. The file of update 0 is "before", that of the
largest update "after". Shape suffixes: S seeds, P prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from project.core import json_files
from project.core.statistics import Share
from project.study.plan import Measure

Rows = Mapping[str, Mapping[str, Any]]
"""Prompt id -> row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The evaluations of one run by one benchmark."""

    before: Rows
    after: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """One measure on the same prompts and seeds in all of its arms."""

    strata_P: tuple[str, ...]
    """Set and kind."""
    before: Mapping[str, Share]
    """By arm."""
    after: Mapping[str, Share]
    given: bool
    """Whether only some rows count."""
    left_out: int
    """Prompts without an outcome in some evaluation: they count in none."""


def read_pair(folder: Path, benchmark: str) -> Pair:
    """Evaluations before and after the training of a run folder.

    Raises FileNotFoundError unless there are evaluations at two updates, the first of them 0; ValueError for a
    file that is no list of rows.
    """
    pattern = re.compile(rf"{re.escape(benchmark)}_(\d+)\.jsonl")
    files = {
        int(m[1]): file for file in (folder / "evaluations").glob("*.jsonl") if (m := pattern.fullmatch(file.name))
    }
    if 0 not in files or len(files) < 2:
        there = ", ".join(sorted(file.name for file in (folder / "evaluations").glob("*"))) or "nothing"
        raise FileNotFoundError(
            f"{folder}/evaluations holds {there}: a study needs {benchmark}_0.jsonl and that of a later update; check "
            "its `benchmark` and those of its measures, the run's `benchmarks`, and trainer.num_sanity_val_steps = -1"
        )
    return Pair(before=read_rows(files[0]), after=read_rows(files[max(files)]))


def read_rows(file: Path) -> dict[str, dict[str, Any]]:
    """Rows by prompt id. Raises ValueError (file:line) for a line that is no row, or an id that stands there twice."""
    rows: dict[str, dict[str, Any]] = {}
    for place, row in json_files.read_rows(file):
        wrong = None
        if missing := {"id", "set", "kind"} - set(row):
            wrong = f"lacks {', '.join(sorted(missing))}"
        elif not isinstance(row["id"], str):
            wrong = f"has the id {row['id']!r}, which is no text"
        elif row["id"] in rows:
            wrong = f"repeats the id {row['id']!r}"
        if wrong:
            raise ValueError(f"{place}: {wrong}: rows are paired by the id of the prompt, evaluate the run again")
        rows[row["id"]] = row
    return rows


def outcomes(pairs: Mapping[str, Sequence[Pair]], name: str, measure: Measure) -> Outcomes:
    """A measure of its arms (arm -> the pairs of its seeds) as arrays.

    Raises ValueError if the runs were evaluated on other prompts, or the measure's sets or outcomes are not there.
    """
    evaluations = {arm: [rows for pair in runs for rows in (pair.before, pair.after)] for arm, runs in pairs.items()}
    first = next(iter(evaluations.values()))[0]
    if any(rows.keys() != first.keys() for found in evaluations.values() for rows in found):
        raise ValueError(
            f"measure {name!r}: the runs of {', '.join(pairs)} were evaluated on different prompts: give these arms "
            "the same, by data.init_args.val or their benchmark's own"
        )
    sets = {row["set"] for row in first.values()}
    if unknown := set(measure.sets) - sets:
        raise ValueError(
            f"measure {name!r}: there is no set {sorted(unknown)[0]!r}: choose of {', '.join(sorted(sets))}"
        )
    ids = sorted(key for key, row in first.items() if not measure.sets or row["set"] in measure.sets)
    for outcome in filter(None, (measure.outcome, measure.minus, *measure.given)):
        for arm, found in evaluations.items():
            if not ids or any(outcome not in rows[key] for rows in found for key in ids):
                known = ", ".join(sorted({key for row in found[0].values() for key in row} - {"id", "set", "kind"}))
                raise ValueError(
                    f"measure {name!r}: not all rows of {arm} have an outcome {outcome!r}: choose of {known}, or leave "
                    "the arm out of the measure's `arms`"
                )

    def value(row: Mapping[str, Any]) -> float:
        terms = (row[measure.outcome], 0.0 if measure.minus is None else row[measure.minus])
        return np.nan if None in terms else terms[0] - terms[1]

    def given(row: Mapping[str, Any]) -> bool:
        return all(row[outcome] == wanted for outcome, wanted in measure.given.items())

    def share(evaluations: Sequence[Rows]) -> Share:
        rows_SP = [[rows[key] for key in ids] for rows in evaluations]
        return Share(
            value_SP=np.array([[value(row) for row in rows_P] for rows_P in rows_SP], np.float64),
            given_SP=np.array([[given(row) for row in rows_P] for rows_P in rows_SP], np.float64),
        )

    before = {arm: share([pair.before for pair in runs]) for arm, runs in pairs.items()}
    after = {arm: share([pair.after for pair in runs]) for arm, runs in pairs.items()}
    everything = [*before.values(), *after.values()]
    known_P = np.isfinite(np.concatenate([of.value_SP for of in everything])).all(axis=0)
    if not known_P.any():
        asked = repr(measure.outcome) + (f" and one {measure.minus!r}" if measure.minus else "")
        raise ValueError(f"measure {name!r}: no prompt has an outcome {asked} in every evaluation")
    if not all(of.given_SP[:, known_P].any() for of in everything):
        raise ValueError(f"measure {name!r}: in some evaluation no prompt has what is given, {measure.given}")
    return Outcomes(
        strata_P=tuple(f"{first[k]['set']}/{first[k]['kind']}" for k, known in zip(ids, known_P, strict=True) if known),
        before={arm: _of(of, known_P) for arm, of in before.items()},
        after={arm: _of(of, known_P) for arm, of in after.items()},
        given=bool(measure.given),
        left_out=int((~known_P).sum()),
    )


def _of(share: Share, prompts_P: NDArray[np.bool_]) -> Share:
    return Share(value_SP=share.value_SP[:, prompts_P], given_SP=share.given_SP[:, prompts_P])
