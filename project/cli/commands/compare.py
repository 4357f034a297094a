"""What changed between evaluations of the same prompts, with intervals.

`compare --before A/evaluations/shapes_0.jsonl --after B/evaluations/shapes_350.jsonl C/evaluations/shapes_350.jsonl`
tells for every set of prompts and every outcome what it was, what it is, and the gain with its 95% interval by paired
bootstrap over prompts and runs (B and C: two seeds of the same training). Kinds of prompts weigh the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project.study.evaluations import Pair


def add_arguments(parser: Any) -> None:
    """Options of `python -m project compare`."""
    parser.add_argument(
        "--before", required=True, nargs="+", help="evaluations/BENCHMARK_UPDATE.jsonl: one for all, or one a run"
    )
    parser.add_argument("--after", required=True, nargs="+", help="those to compare with it: one a run")


def run(args: Any) -> int:
    """Writes the table to stdout. Raises ValueError or FileNotFoundError for what cannot be compared."""
    from project.study.evaluations import Pair, read_rows

    if len(args.before) not in (1, len(args.after)):
        raise ValueError(f"--before names {len(args.before)} files and --after {len(args.after)}: give one, or as many")
    for file in (*args.before, *args.after):
        if not Path(file).is_file():
            there = ", ".join(sorted(str(other) for other in Path(file).rglob("evaluations/*.jsonl"))[:4])
            if there:
                raise FileNotFoundError(f"{file} is a folder: name a file of it, such as {there}")
            raise FileNotFoundError(
                f"there is no file {file}: `fit` and `validate` write evaluations/BENCHMARK_UPDATE.jsonl into their "
                "run folder"
            )
    rows = {file: read_rows(Path(file)) for file in (*args.before, *args.after)}
    prompts = rows[args.before[0]].keys()
    if not prompts:
        raise ValueError(f"{args.before[0]} holds no rows: the evaluation found no prompts")
    for file, found in rows.items():
        if found.keys() != prompts:
            raise ValueError(
                f"{file} has other prompts than {args.before[0]}: evaluate both with one data.init_args.val"
            )
    before = args.before * len(args.after) if len(args.before) == 1 else args.before
    pairs = [Pair(before=rows[first], after=rows[last]) for first, last in zip(before, args.after, strict=True)]
    sys.stdout.write("\n".join(table(pairs)) + "\n")
    return 0


def table(pairs: Sequence[Pair]) -> list[str]:
    """One row in Markdown for every set and outcome. Raises ValueError as `outcomes` does."""
    from project.core.statistics import bootstrap, paired_bootstrap
    from project.study.evaluations import outcomes
    from project.study.plan import Measure
    from project.study.report import markdown_table, signed

    cells = []
    evaluations = [rows for pair in pairs for rows in (pair.before, pair.after)]
    for name in dict.fromkeys(row["set"] for row in pairs[0].before.values()):
        for outcome in measured([[row for row in rows.values() if row["set"] == name] for rows in evaluations]):
            measure = Measure(outcome=outcome, sets=[name])
            found = outcomes({"runs": pairs}, f"{name}: {outcome}", measure)
            before, after, strata = found.before["runs"].value_SP, found.after["runs"].value_SP, found.strata_P
            change = f"{bootstrap(before, strata).mean:.1f} → {bootstrap(after, strata).mean:.1f}"
            cells.append([name, outcome, str(len(strata)), change, signed(paired_bootstrap(before, after, strata))])
    return markdown_table(["set", "outcome", "prompts", "before → after", "gain"], cells)


def measured(evaluations: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Outcomes that all rows have, as a number or as null (not measured), and some prompt as a number everywhere."""
    first = evaluations[0]
    shared = [key for key in first[0] if all(key in row for rows in evaluations for row in rows)]
    by_id = [{row["id"]: row for row in rows} for rows in evaluations]

    def everywhere(key: str) -> bool:
        values_PE = [[rows[row["id"]][key] for rows in by_id] for row in first]
        known = [value for values in values_PE for value in values if value is not None]
        return all(isinstance(value, Real) for value in known) and any(None not in values for values in values_PE)

    return [key for key in shared if key != "id" and everywhere(key)]
