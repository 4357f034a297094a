"""The outcome of a study: levels, gains, differences of gains and bars -> `table.json` and `table.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from project.run_folder import write_atomically
from project.statistics import Interval, bootstrap, paired_bootstrap, paired_bootstrap_between
from project.study.evaluations import Outcomes, Pair, outcomes
from project.study.plan import Bar, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One measure [percentage points], by arm."""

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


def make_report(
    study: Study,
    pairs: Mapping[str, Sequence[Pair]],
    seconds: Mapping[str, Sequence[float]],
    missing: Sequence[str] = (),
) -> Report:
    """The report on the evaluations and running times [seconds] of every arm, seed by seed; `missing` runs are named.

    Raises ValueError as `outcomes` does.
    """
    compared = dict.fromkeys([*study.compare, *((bar.arm, bar.versus) for bar in study.bars if bar.versus)])
    lines = {
        name: _line(outcomes(pairs, name, measure), [(a, b) for a, b in compared])
        for name, measure in study.measures.items()
    }
    return Report(
        name=study.name,
        seeds=study.seeds,
        efforts={
            arm: Effort(updates=[pair.updates for pair in runs], seconds=list(seconds[arm]))
            for arm, runs in pairs.items()
        },
        lines=lines,
        verdicts=[_verdict(bar, lines[bar.measure]) for bar in study.bars],
        missing=list(missing),
    )


def write_report(report: Report, out: Path) -> Path:
    """Writes `table.json` and `table.md` into `out` and returns the path of the latter."""
    write_atomically(out / "table.json", json.dumps(asdict(report), indent=2) + "\n")
    write_atomically(out / "table.md", markdown(report))
    return out / "table.md"


def markdown(report: Report) -> str:
    """The table, what it took, and the bars as a checked list."""
    arms, compared = list(report.efforts), _compared(report)
    heads = ["measure", "prompts"]
    for arm in arms:
        heads += [f"{arm}: before → after", "gain"]
    heads += [f"gain of {a} - {b}" for a, b in compared]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name, line in report.lines.items():
        cells = [name, str(line.prompts)]
        for arm in arms:
            cells += [f"{line.before[arm].mean:.1f} → {line.after[arm].mean:.1f}", signed(line.gain[arm])]
        rows.append([*cells, *(signed(line.versus[a][b]) for a, b in compared)])
    text = [f"# Study {report.name}", ""]
    text += [f"| {' | '.join(row)} |" for row in rows]
    text += ["", *_notes(report)]
    if report.verdicts:
        text += ["", "Bars set beforehand:", "", *map(_checked, report.verdicts)]
    return "\n".join(text) + "\n"


def signed(value: Interval) -> str:
    """ "+12.3 [+8.1, +16.0]"."""
    return f"{value.mean:+.1f} [{value.low:+.1f}, {value.high:+.1f}]"


def _line(found: Outcomes, compared: Sequence[tuple[str, str]]) -> Line:
    before, after, strata = found.before_SP, found.after_SP, found.strata_P
    versus: dict[str, dict[str, Interval]] = {}
    for a, b in compared:
        versus.setdefault(a, {})[b] = paired_bootstrap_between(before[a], after[a], before[b], after[b], strata)
    return Line(
        prompts=len(strata),
        left_out=found.left_out,
        before={arm: bootstrap(values, strata) for arm, values in before.items()},
        after={arm: bootstrap(values, strata) for arm, values in after.items()},
        gain={arm: paired_bootstrap(before[arm], after[arm], strata) for arm in before},
        versus=versus,
    )


def _verdict(bar: Bar, line: Line) -> Verdict:
    value = line.versus[bar.arm][bar.versus] if bar.versus else line.gain[bar.arm]
    met = (bar.at_least is None or value.mean >= bar.at_least) and (
        bar.lower_bound_above is None or value.low > bar.lower_bound_above
    )
    return Verdict(bar=bar, value=value, met=met)


def _compared(report: Report) -> list[tuple[str, str]]:
    line = next(iter(report.lines.values()))
    return [(a, b) for a, others in line.versus.items() for b in others]


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
