"""The report on a run over pictures: who judged what, and the figures as a table, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from project.benchmarks.pictures.base import Scored
from project.benchmarks.pictures.verdicts import SHEET
from project.benchmarks.scoring import Mode, percent

if TYPE_CHECKING:
    from project.benchmarks.pictures.run import PictureRun

INDENT = "\u00a0" * 4
"""In a Markdown table, where usual spaces would be dropped."""
IN_RESULTS_ALONE = ("task", "policy", "adapters")
"""What a manifest says of the drawing at such length that a report leaves it out."""
ORACLE = (
    "oracle: only the pictures that this benchmark calls wrong are drawn again, which nobody could know in real use."
)


def report_text(run: PictureRun[Any], mode: Mode, scored: Scored, strict: Scored, rounds: Mapping[str, Any]) -> str:
    """The figures of a mode as Markdown, with who judged, what is missing, and the rounds made from these."""
    lines = [f"# {run.benchmark.name()}, {mode}", ""]
    made = {key: value for key, value in run.identity().items() if key not in ("benchmark", "drawing")}
    made |= {f"drawing, {key}": value for key, value in (run.drawing or {}).items() if key not in IN_RESULTS_ALONE}
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in made.items()]
    lines += [f"- pictures: {run.folder}, {len(run.asked_rows)} of {len(run.pictures)} judged"]
    lines += [f"- coverage: {strict.coverage}"]
    if scored.coverage.dropped:
        lines += [f"- {mode}: {scored.coverage}"]
    lines += [f"- missing: {run.told_missing()}"] if run.missing else []
    lines += [f"- not judged: {run.told_unjudged()}"] if run.unjudged else []
    sheet = ["", f"![good and bad pictures]({SHEET})"] if (run.out / SHEET).is_file() else []
    table = [("round", "overall", "overall, oracle"), ("first pictures", percent(scored.headline), "")]
    table += [(name, percent(r["overall"]), percent(r["oracle"]["overall"])) for name, r in rounds.items()]
    refined = ["", *markdown(table), "", ORACLE] if rounds else []
    return "\n".join([*lines, "", *markdown(scored.table), *refined, *sheet, ""])


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; the first row is its header, and indented names stay indented."""
    cells = [[cell.replace("  ", INDENT) for cell in row] for row in table]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]

    def line(row: Sequence[str]) -> str:
        name, *values = row
        aligned = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        return f"| {' | '.join([name.ljust(widths[0]), *aligned])} |"

    rule = f"| {' | '.join(['-' * max(widths[0], 3), *('-' * max(width - 1, 2) + ':' for width in widths[1:])])} |"
    return [line(cells[0]), rule, *map(line, cells[1:])]
