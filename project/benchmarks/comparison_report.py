"""Runs beside each other and beside published figures, as Markdown.

Figures are those of one mode, on the scale of the benchmark's scorer: a GenEval score is 0.82, not 82.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from project.benchmarks.comparison import COVERING, JUDGING, JudgedRun, differences, differing, read_runs
from project.benchmarks.pictures.run import REPORT
from project.benchmarks.pictures.verdicts import SHEET, VERDICTS
from project.benchmarks.reference_numbers import FILE, ReferenceNumbers, reference_numbers
from project.benchmarks.scoring import Mode, listed
from project.core.atomic_files import write_atomically

ABSENT = "\N{EN DASH}"
"""In a table, for what there is not."""
MINUS = "\N{MINUS SIGN}"
SETTINGS = ("items_file", "pictures_folder")
"""Keys of a manifest that are paths: they say where a run stands, and come last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """What `report` prints and writes."""

    text: str
    """Markdown. It shows the pictures by their names."""
    pictures: Mapping[str, Path]
    """Name -> the contact sheet of a run."""

    def write(self, folder: Path) -> Path:
        """Writes `report.md` with the pictures beside it, and returns its path. Raises OSError naming the file."""
        for name, file in self.pictures.items():
            write_atomically(folder / name, file.read_bytes())
        write_atomically(folder / REPORT, self.text)
        return folder / REPORT


def compare_folders(folders: Sequence[Path], mode: Mode = "official", numbers: Path = FILE) -> ComparisonReport:
    """The report on the runs of some folders.

    Args:
        folders: Of runs, or such that hold runs.
        mode: Whose figures the tables show. Published figures are compared with official ones.
        numbers: The file of published figures.

    Raises ValueError and FileNotFoundError as `read_runs` and `reference_numbers` do.
    """
    published = reference_numbers(file=numbers)
    lines: list[str] = []
    pictures: dict[str, Path] = {}
    for benchmark, runs in read_runs(folders).items():
        lines += [f"# {benchmark}", "", *_notes(runs, mode), ""]
        lines += ["## Figures", "", *_figures(runs, mode), ""]
        if len(runs) > 1:
            lines += ["## Differences", "", *_differences(runs), ""]
        lines += ["## Published figures", "", *_published(runs, published), ""]
        lines += ["## How the runs were made", "", *_manifests(runs), ""]
        lines += ["## Pictures", "", *_pictures(benchmark, runs, pictures), ""]
    return ComparisonReport(text="\n".join(lines), pictures=pictures)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 0) -> list[str]:
    """A table in Markdown: names at the left, numbers at the right. Bars and line ends in cells do no harm.

    Args:
        heads: The first row.
        rows: The others, with as many cells.
        texts: How many of the last columns hold texts, which stand at the left.
    """
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(heads))]
    left = [column == 0 or column >= len(heads) - texts for column in range(len(heads))]
    aligned = [
        [cell.ljust(w) if to_left else cell.rjust(w) for cell, w, to_left in zip(row, widths, left, strict=True)]
        for row in cells
    ]
    rule = ["-" * width if to_left else "-" * (width - 1) + ":" for width, to_left in zip(widths, left, strict=True)]
    return [f"| {' | '.join(row)} |" for row in (aligned[0], rule, *aligned[1:])]


def number(value: float | None) -> str:
    """A figure for a table."""
    return ABSENT if value is None else f"{value:.4f}"


def signed(value: float) -> str:
    """A difference for a table."""
    return f"{value:+.4f}"


def _notes(runs: Sequence[JudgedRun], mode: Mode) -> list[str]:
    """What one must know before one looks at the figures."""
    notes = [f"- Figures of {mode} mode, on the benchmark's own scale."]
    first, *others = runs
    for other in others:
        if keys := [*differing(first, other, JUDGING), *differing(first, other, COVERING)]:
            told = "; ".join(f"{key} is {_value(other, key)}, not {_value(first, key)}" for key in keys)
            notes.append(f"- Not comparable: {other.title} and {first.title} differ ({told}).")
        if set(first.missing) != set(other.missing):
            notes.append(f"- Not comparable: {other.title} and {first.title} lack other items.")
        if other.oracle != first.oracle:
            notes.append(f"- Not comparable: an oracle chose pictures of one of {first.title} and {other.title}.")
    for run in runs:
        expected = run.results["coverage"]["strict"].get("expected")
        if run.missing:
            notes.append(
                f"- {run.title}: {len(run.missing)} of {expected} are not scored ({listed(run.missing)}). Its figures "
                "are not those of the whole benchmark."
            )
        if not _whole(run):
            notes.append(
                f"- {run.title}: only {run.manifest['asked']} of {run.manifest['items']} items were asked for."
            )
        if run.oracle:
            notes.append(f"- {run.title}: the benchmark itself said which pictures to draw again. No use has that.")
    return notes


def _figures(runs: Sequence[JudgedRun], mode: Mode) -> list[str]:
    found = [{"one overall figure": run.headline(mode), **run.figures(mode)} for run in runs]
    if all(figures["one overall figure"] == figures.get("overall") for figures in found):
        for figures in found:
            del figures["one overall figure"]
    rows = {name: [one.get(name) for one in found] for figures in found for name in figures}
    empty = [name for name, values in rows.items() if all(value is None for value in values)]
    shown = [[name, *map(number, values)] for name, values in rows.items() if name not in empty]
    left_out = ["", f"No run has a value for {len(empty)} figures: {listed(empty)}."] if empty else []
    return [*table(["", *(run.title for run in runs)], shown), *left_out]


def _differences(runs: Sequence[JudgedRun]) -> list[str]:
    first, *others = runs
    rows, notes = [], []
    for other in others:
        if keys := differing(first, other, JUDGING):
            notes.append(f"- {other.title}: no difference to {first.title}, since these differ: {', '.join(keys)}.")
            continue
        found = differences(first, other)
        if found is None:
            without = [run.title for run in (first, other) if run.verdicts is None]
            why = (
                f"{' and '.join(without)} lack{'s' * (len(without) == 1)} {VERDICTS}"
                if without
                else "no item is in both"
            )
            remedy = ": give its `score` command again, which judges nothing twice" if without else ""
            notes.append(f"- {other.title}: no difference to {first.title}, since {why}{remedy}.")
            continue
        for line in found.lines:
            interval = f"{signed(line.mean)} [{signed(line.low)}, {signed(line.high)}]"
            rows.append([f"{other.title}: {line.name}", number(line.first), number(line.other), interval])
        of = {
            "official": "The difference is that of the overall figure",
            "strict": "The difference is that of the overall figure as strict mode computes it",
            None: "The difference is that of the mean worth of the pictures, because the verdicts do not give back the "
            "overall figure",
        }[found.of]
        notes.append(f"- {other.title}: {found.items} items that both runs have verdicts on. {of}.")
    text = [*table(["", first.title, "the other", f"difference to {first.title}"], rows), ""] if rows else []
    how = [
        "- In brackets: the 95% interval of a paired bootstrap. Items are drawn with all of their pictures, the same "
        "ones for both runs, within each category."
    ]
    return [*text, *notes, *(how if rows else [])]


def _published(runs: Sequence[JudgedRun], published: Sequence[ReferenceNumbers]) -> list[str]:
    figures = [run.figures("official") for run in runs]
    rows = []
    for numbers in published:
        before = [_prefix(run, numbers.benchmark) for run in runs]
        for name, value in numbers.figures.items() if any(one is not None for one in before) else ():
            own = [None if b is None else found.get(b + name) for b, found in zip(before, figures, strict=True)]
            gaps = [_gap(run, figure, value, numbers) for run, figure in zip(runs, own, strict=True)]
            gain = f" (gain over {numbers.gain_over})" if numbers.gain_over else ""
            edition = "" if numbers.benchmark == runs[0].benchmark else f"{numbers.benchmark}: "
            shown = signed(value) if numbers.gain_over else number(value)
            rows.append(
                [
                    numbers.model,
                    f"{edition}{name}{gain}",
                    shown,
                    *gaps,
                    numbers.setting,
                    numbers.certainty,
                    numbers.source,
                ]
            )
    if not rows:
        return ["There are none of this benchmark."]
    heads = ["model", "figure", "published", *(f"{run.title} {MINUS} it" for run in runs)]
    return [
        *table([*heads, "setting", "certainty", "source"], rows, texts=3),
        "",
        f"A difference is given for official figures of a whole run on the same prompts. {ABSENT} stands where the "
        "published figure is a gain, is of other prompts, or does not say of which, and where a run is not whole. "
        "Judges and ways of drawing differ as the settings say.",
    ]


def _prefix(run: JudgedRun, published: str) -> str | None:
    """What stands before the names of a run's figures that mean the same as those published under a name.

    The name is the benchmark's own, or has an edition behind it (`wise_legacy`) or a language (`gedit_en`), which the
    run has figures of. None if the run has no such figures.
    """
    name, _, part = published.partition("_")
    if published == run.benchmark:
        return ""
    if name != run.benchmark:
        return None
    if part == str(run.manifest.get("edition")).partition(",")[0]:
        return ""
    return f"{part}/" if isinstance(run.results["official"].get(part), Mapping) else None


def _gap(run: JudgedRun, figure: float | None, value: float, numbers: ReferenceNumbers) -> str:
    same = numbers.version is not None and run.manifest.get("items_version") == numbers.version
    whole = not run.missing and _whole(run)
    if figure is None or numbers.gain_over or not same or not whole:
        return ABSENT
    return signed(figure - value)


def _whole(run: JudgedRun) -> bool:
    """Whether all items of the benchmark were asked for."""
    return run.manifest.get("asked") == run.manifest.get("items")


def _manifests(runs: Sequence[JudgedRun]) -> list[str]:
    keys = [key for key in dict.fromkeys(key for run in runs for key in run.manifest) if key not in SETTINGS]
    rows = [[key, *(_value(run, key) for run in runs)] for key in (*keys, *SETTINGS)]
    covered = [run.results["coverage"]["strict"] for run in runs]
    rows.insert(0, ["coverage", *(f"{one.get('scored')} of {one.get('expected')}" for one in covered)])
    return table(["", *(run.title for run in runs)], rows, texts=len(runs))


def _pictures(benchmark: str, runs: Sequence[JudgedRun], pictures: dict[str, Path]) -> list[str]:
    lines = []
    for n, run in enumerate(runs, start=1):
        if run.sheet is None:
            remedy = "give its `score` command again while its pictures are there"
            lines += [f"{run.title}: {run.folder} has no {SHEET}: {remedy}."]
        else:
            name = f"{benchmark}_{n}.png"
            pictures[name] = run.sheet
            lines += [f"{run.title}:", "", f"![good and bad pictures of {run.title}]({name})"]
        lines.append("")
    return lines[:-1]


def _value(run: JudgedRun, key: str) -> str:
    """What a manifest says, for people; long digests are cut."""
    value: Any = run.manifest.get(key)
    if value is None:
        return ABSENT
    return f"{value[:12]}..." if key.endswith("sha256") and isinstance(value, str) else str(value)
