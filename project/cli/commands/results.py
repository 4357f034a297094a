"""Show the scores before and after training of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DETAILS = ("by_kind", "official", "strict")
"""Keys of figures that are too many for a table."""


def add_arguments(parser: Any) -> None:
    """Options of `python -m project results`."""
    parser.add_argument("folder", nargs="?", default="runs", help="a run folder, or a folder of runs: the newest")


def run(args: Any) -> int:
    """Writes the table to stdout. Raises FileNotFoundError if there are no results."""
    files = sorted(Path(args.folder).rglob("results.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is no JSON ({error}): measure the run again (validate)") from error
        if {"before", "after"} <= results.keys():
            sys.stdout.write(table(results, file.parent))
            return 0
    if files:
        raise FileNotFoundError(
            f"{files[0]} has scores of a benchmark, not of a run: show them with python -m project report {args.folder}"
        )
    raise FileNotFoundError(f"there is no results.json below {args.folder}: train first, or name a run folder")


def table(results: Mapping[str, Any], folder: Path) -> str:
    """One line a figure: before, after and their difference; below, where to look."""
    before, after = flat(results["before"] or {}), flat(results["after"] or {})
    names = list(before | after)
    width = max([len(name) for name in names] + [len("score")])
    lines = [f"run {folder}", f"{'score':<{width}}  {'before':>7}  {'after':>7}  {'change':>7}"]
    if not names:
        lines = [f"run {folder}", "It was not evaluated: it has no benchmarks, or its validation is off."]
    for name in names:
        first, last = before.get(name), after.get(name)
        change = None if first is None or last is None else last - first
        lines.append(f"{name:<{width}}  {_number(first)}  {_number(last)}  {_number(change, '+')}")
    where = {
        "pictures": folder / "before_after.png",
        "by kind": folder / "results.json",
        "weights": folder / "checkpoints" / "last.ckpt",
    }
    lines += ["", f"{results['updates']} updates in {results['seconds']:.0f} s, seed {results['seed']}"]
    lines += [f"{name + ':':<9} {file}" for name, file in where.items() if file.exists()]
    lines.append(f"{'curves:':<9} tensorboard --logdir {folder}")
    return "\n".join(lines) + "\n"


def flat(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{"a": 1, "b": {"c": 2}} -> {"a": 1, "b/c": 2}, without `DETAILS`."""
    figures: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            figures |= flat(value, f"{prefix}{name}/") if name not in DETAILS else {}
        else:
            figures[prefix + name] = value
    return figures


def _number(value: float | None, sign: str = "") -> str:
    return f"{'-':>7}" if value is None else f"{value:>{sign}7.3f}"
