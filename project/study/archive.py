"""The finished runs of studies in one small file: machines go, and what was measured on them stays.

`ARCHIVE.zip` holds for every run, under its name ARM-SEED,

    run.json             its settings: for others it is not this run
    results.json         its scores before and after
    evaluations/*.jsonl  its outcomes, prompt by prompt, with the texts
    metrics.csv          the columns that the study draws or averages

about 45 kB for 2 x 2600 outcomes. Numbers of the evaluations are rounded to `DIGITS` digits, finer than the float32
that they were; the rest is unchanged. The bytes depend on nothing but the contents.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from project.core.atomic_files import write_atomically
from project.study.plan import Study
from project.study.runs import Run, runs_of

DIGITS = 8
_FILE = re.compile(r"results\.json|metrics\.csv|evaluations/[^/\\]+\.jsonl")
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
"""The earliest that the format knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The runs of a study that an archive holds."""

    runs: list[Run]
    """With the settings that they were made with."""
    edited: list[str]
    """Names of those that the study and its configuration files would make otherwise now."""


def pack(archive: Path, runs: Sequence[Run], columns: Sequence[str]) -> None:
    """Puts those of `runs` that are finished into the archive, in place of what it holds of them.

    `columns` are those of `metrics.csv` to keep. The archive is written in one step, and only if it changes.
    Raises ValueError if a run has other settings than `runs`, or the archive cannot be read.
    """
    before = _read(archive)
    after = dict(before)
    for run in runs:
        folder = run.finished()
        if folder is not None:
            kept = {name: content for name, content in after.items() if not name.startswith(f"{run.name}/")}
            after = kept | {f"{run.name}/{name}": text.encode() for name, text in _essentials(run, folder, columns)}
    if after != before:
        write_atomically(archive, _zipped(after))


def unpack(archive: Path, runs: Sequence[Run]) -> list[str]:
    """Lays those of `runs` that are not finished but in the archive into their homes; returns their names.

    Raises ValueError if the archive cannot be read, or holds one of `runs` with other settings or incomplete; what
    was found wrong is not laid out.
    """
    contents = _read(archive)
    unpacked = []
    for run in runs:
        files = _files_of(run, contents)
        if not files or run.finished() is not None:
            continue
        wrong = _fault(files)
        if not wrong and not run.made_with(json.loads(files["run.json"])):
            wrong = f"with other settings (see its {run.name}/run.json)"
        if wrong:
            raise ValueError(f"{archive} holds {run.name} {wrong}: give another --archive")
        _lay_out(run, files)
        unpacked.append(run.name)
    return unpacked


def open_archive(archive: Path, study: Study, out: Path) -> Saved:
    """Lays the runs of a study that are in the archive into `out`, whatever settings they were made with.

    A report on saved runs so outlives changes of the configuration files, and can tell of them.
    Raises FileNotFoundError if there is no archive; ValueError if it cannot be read or a run in it is incomplete, or
    `out` holds one with other settings than the archive.
    """
    if not archive.is_file():
        raise FileNotFoundError(
            f"there is no archive {archive}: the study's --archive writes one (now in {Path.cwd()})"
        )
    contents = _read(archive)
    saved = Saved(runs=[], edited=[])
    for run in runs_of(study, out):
        files = _files_of(run, contents)
        if not files:
            continue
        if wrong := _fault(files):
            raise ValueError(f"{archive} holds {run.name} {wrong}: give another archive")
        noted = json.loads(files["run.json"])
        made = replace(run, settings=noted["settings"])
        if made.finished() is None:
            _lay_out(made, files)
        saved.runs.append(made)
        if not run.made_with(noted):
            saved.edited.append(run.name)
    return saved


def _files_of(run: Run, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a run, by their names in it."""
    prefix = f"{run.name}/"
    return {name.removeprefix(prefix): text for name, text in contents.items() if name.startswith(prefix)}


def _essentials(run: Run, folder: Path, columns: Sequence[str]) -> list[tuple[str, str]]:
    """Names and texts of the files that are kept of a finished run."""
    evaluations = sorted((folder / "evaluations").glob("*.jsonl"))
    kept = [
        ("run.json", json.dumps({"settings": run.settings}, separators=(",", ":")) + "\n"),
        ("results.json", (folder / "results.json").read_text(encoding="utf-8")),
        *((f"evaluations/{file.name}", _rounded(file.read_text(encoding="utf-8"))) for file in evaluations),
    ]
    if (folder / "metrics.csv").is_file():
        kept.append(("metrics.csv", _columns((folder / "metrics.csv").read_text(encoding="utf-8"), columns)))
    return kept


def _rounded(rows: str) -> str:
    return "".join(
        json.dumps(
            {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in row.items()},
            separators=(",", ":"),
        )
        + "\n"
        for row in map(json.loads, rows.splitlines())
    )


def _columns(table: str, names: Sequence[str]) -> str:
    """The columns "step" and `names` of a CSV table, without the rows that are empty in all of `names`."""
    rows = csv.DictReader(io.StringIO(table, newline=""))
    there = [name for name in dict.fromkeys(names) if name in (rows.fieldnames or ())]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, ["step", *there], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for row in rows if any(row[name] for name in there))
    return stream.getvalue()


def _fault(files: Mapping[str, bytes]) -> str:
    """What keeps these files from being a finished run; empty if nothing does."""
    values: dict[str, Any] = {}
    for name in ("run.json", "results.json"):
        try:
            values[name] = json.loads(files[name])
        except (KeyError, ValueError):
            return f"without a readable {name}"
        if not isinstance(values[name], dict):
            return f"with a {name} that is no record"
    if not isinstance(values["run.json"].get("settings"), dict):
        return "with a run.json that lacks its settings"
    if values["results.json"].get("after") is None:
        return "without a score after training"
    foreign = [name for name in files if name != "run.json" and not _FILE.fullmatch(name)]
    return f"with {foreign[0]!r}, which is no file of a run" if foreign else ""


def _lay_out(run: Run, files: Mapping[str, bytes]) -> None:
    # A run that was begun here keeps its own folders, and what was unpacked only half is not taken up again.
    numbers = [int(path.name.removeprefix("version_")) for path in run.versions()]
    folder = run.home / f"version_{max(numbers, default=-1) + 1}"
    for name, content in files.items():
        if name != "run.json":
            write_atomically(folder / name, content)
    # Last: what says that the run is finished.
    run.note(finished=True)


def _read(archive: Path) -> dict[str, bytes]:
    """Name -> content of the files in the archive; none if it is not there."""
    if not archive.exists():
        return {}
    try:
        with zipfile.ZipFile(archive) as packed:
            return {name: packed.read(name) for name in packed.namelist()}
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{archive} cannot be read as an archive of runs ({error}): give another --archive") from error


def _zipped(contents: Mapping[str, bytes]) -> bytes:
    """The archive of `contents`. Of the formats that ZIP allows, bzip2 is the smallest on short similar lines."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _TIMESTAMP)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, contents[name], zipfile.ZIP_BZIP2, 9)
    return stream.getvalue()
