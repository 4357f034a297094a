"""The outcome of a study: levels, gains, differences of gains, means and bars -> `table.json` and `table.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from project.core.atomic_files import write_atomically
from project.core.statistics import Interval, Share, bootstrap, bootstrap_shares
from project.study.evaluations import Outcomes, outcomes
from project.study.plan import Bar, Section, Study
from project.study.results import Result

ABSENT = "\N{EN DASH}"
"""In the table, for what an arm does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One measure [percentage points], by arm that it is taken on."""

    prompts: int
    left_out: int
    """Prompts that some evaluation has no outcome for."""
    before: dict[str, Interval]
    after: dict[str, Interval]
    gain: dict[str, Interval]
    versus: dict[str, dict[str, Interval]]
    """How much more an arm gains than another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What the runs of an arm took: one number a seed."""

    updates: list[int]
    seconds: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A bar and what came out."""

    bar: Bar
    value: Interval
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A finished study."""

    name: str
    seeds: list[int]
    efforts: dict[str, Effort]
    lines: dict[str, Line]
    verdicts: list[Verdict]
    missing: list[str] = field(default_factory=list)
    """Runs of the whole study that the report is made without."""
    edited: list[str] = field(default_factory=list)
    """Runs made with other settings than the configuration files have now."""
    means: dict[str, dict[str, list[float | None]]]
    """By column of `metrics.csv` and arm: the mean over all updates, one a seed; None for a run without the column."""
    sections: dict[str, Section]
    """The tables by name; "" is that of a study with one."""


def make_report(
    study: Study, results: Mapping[str, Sequence[Result]], missing: Sequence[str] = (), edited: Sequence[str] = ()
) -> Report:
    """The report on the results of every arm, seed by seed; `missing` and `edited` runs are named in it.

    Raises ValueError as `outcomes` does.
    """
    sections = study.sections()
    shown = [pair for section in sections.values() for pair in section.compare]
    compared = list(dict.fromkeys([*study.compared, *shown]))
    lines = {}
    for name, measure in study.measures.items():
        benchmark = measure.benchmark or study.benchmark
        pairs = {arm: [result.pairs[benchmark] for result in results[arm]] for arm in study.arms_of(name)}
        lines[name] = _line(outcomes(pairs, name, measure), [pair for pair in compared if set(pair) <= set(pairs)])
    return Report(
        name=study.name,
        seeds=study.seeds,
        efforts={
            arm: Effort(updates=[run.updates for run in runs], seconds=[run.seconds for run in runs])
            for arm, runs in results.items()
        },
        lines=lines,
        verdicts=[_verdict(bar, lines[bar.measure]) for bar in study.bars],
        missing=list(missing),
        edited=list(edited),
        means={
            column: {arm: [_mean(run, column) for run in runs] for arm, runs in results.items()}
            for column in study.means
        },
        sections=sections,
    )


def write_report(report: Report, out: Path) -> list[Path]:
    """Writes `table.md` and `table.json` into `out` and returns their paths in this order."""
    contents = {out / "table.md": markdown(report), out / "table.json": json.dumps(asdict(report), indent=2) + "\n"}
    for file, text in contents.items():
        write_atomically(file, text)
    return list(contents)


def markdown(report: Report) -> str:
    """The tables, what the study took, and the bars as a checked list."""
    text = [f"# Study {report.name}", ""]
    for name, section in report.sections.items():
        text += [f"## {name}", ""] if name else []
        text += [*_table(report, section), ""]
        text += [*_means(report, section), ""] if section.means else []
    text += [] if "" in report.sections else ["## Notes", ""]
    text += _notes(report)
    if report.verdicts:
        text += ["", "Bars set beforehand:", "", *map(_checked, report.verdicts)]
    return "\n".join(text) + "\n"


def signed(value: Interval) -> str:
    """ "+12.3 [+8.1, +16.0]"."""
    return f"{value.mean:+.1f} [{value.low:+.1f}, {value.high:+.1f}]"


def _table(report: Report, section: Section) -> list[str]:
    heads = ["measure", "prompts"]
    for arm in section.arms:
        heads += [f"{arm}: before → after", "gain"]
    heads += [f"gain of {a} - {b}" for a, b in section.compare]
    rows = []
    for name in section.measures:
        line = report.lines[name]
        cells = [name, str(line.prompts)]
        for arm in section.arms:
            there = arm in line.gain
            cells.append(f"{line.before[arm].mean:.1f} → {line.after[arm].mean:.1f}" if there else ABSENT)
            cells.append(signed(line.gain[arm]) if there else ABSENT)
        for a, b in section.compare:
            value = line.versus.get(a, {}).get(b)
            cells.append(ABSENT if value is None else signed(value))
        rows.append(cells)
    return markdown_table(heads, rows)


def _means(report: Report, section: Section) -> list[str]:
    rows = []
    for column in section.means:
        cells = [column]
        for arm in section.arms:
            values = report.means[column][arm]
            known = [value for value in values if value is not None]
            part = f", {len(known)} of {len(values)} seeds" if len(known) < len(values) else ""
            cells.append(f"{_range(known, '.3g')}{part}" if known else ABSENT)
        rows.append(cells)
    return markdown_table(["mean over updates (range over seeds)", *section.arms], rows)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown: names at the left, numbers at the right."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---", *["---:"] * (len(heads) - 1)], *rows)]


def _mean(run: Result, column: str) -> float | None:
    return float(run.curves[column][1].mean()) if column in run.curves else None


def _line(found: Outcomes, compared: Sequence[tuple[str, str]]) -> Line:
    before, after, strata = found.before, found.after, found.strata_P

    def interval(*terms: tuple[int, Share]) -> Interval:
        if found.given:
            return bootstrap_shares(terms, strata)
        return bootstrap(sum(sign * share.value_SP for sign, share in terms), strata)

    versus: dict[str, dict[str, Interval]] = {}
    for a, b in compared:
        versus.setdefault(a, {})[b] = interval((1, after[a]), (-1, before[a]), (-1, after[b]), (1, before[b]))
    return Line(
        prompts=len(strata),
        left_out=found.left_out,
        before={arm: interval((1, share)) for arm, share in before.items()},
        after={arm: interval((1, share)) for arm, share in after.items()},
        gain={arm: interval((1, after[arm]), (-1, before[arm])) for arm in before},
        versus=versus,
    )


def _verdict(bar: Bar, line: Line) -> Verdict:
    value = line.versus[bar.arm][bar.versus] if bar.versus else line.gain[bar.arm]
    met = (bar.at_least is None or value.mean >= bar.at_least) and (
        bar.lower_bound_above is None or value.low > bar.lower_bound_above
    )
    return Verdict(bar=bar, value=value, met=met)


def _notes(report: Report) -> list[str]:
    took = "; ".join(
        f"{arm} {_range(effort.updates, '.0f')} updates in {_range(effort.seconds, '.0f')} s a run"
        for arm, effort in report.efforts.items()
    )
    notes = [
        f"Percentage points; kinds of prompts weigh the same; 95% intervals by paired bootstrap over prompts and "
        f"{len(report.seeds)} seed{'s' if len(report.seeds) > 1 else ''} ({', '.join(map(str, report.seeds))}).",
        f"Effort: {took}.",
    ]
    if report.missing:
        notes.append(f"Not the whole study, made without {', '.join(report.missing)}.")
    if report.edited:
        notes.append(f"Made with other settings than the configuration files have now: {', '.join(report.edited)}.")
    for name, line in report.lines.items():
        if line.left_out:
            notes.append(f"{name}: {line.left_out} prompts left out, which some evaluation has no outcome for.")
    return notes


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{format(float(np.mean(values)), form)} ({low} to {high})"


def _checked(verdict: Verdict) -> str:
    bar = verdict.bar
    asked = []
    if bar.at_least is not None:
        asked.append(f"at least {bar.at_least:+g}")
    if bar.lower_bound_above is not None:
        asked.append(f"lower bound above {bar.lower_bound_above:g}")
    of = f"gain of {bar.arm}" + (f" - {bar.versus}" if bar.versus else "")
    mark, word = ("x", "yes") if verdict.met else (" ", "no")
    return f"- [{mark}] {bar.measure}, {of}: {', '.join(asked)}: {word}, {signed(verdict.value)}"
