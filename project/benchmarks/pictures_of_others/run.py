"""Judging a folder of pictures: rows that survive an interruption, and what is said of them at the end.

Files of the folder `out`: manifest.json says who judges what, and is written before any row; rows.jsonl has a row for
each judged picture; results.json and report.md are written at the end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, Generic

import numpy as np

from project.benchmarks.dpg import grid_crops
from project.benchmarks.pictures_of_others.base import SUFFIXES, Item, Picture, PictureBenchmark, Scored
from project.benchmarks.scoring import MODES, Mode, listed, require_unique
from project.core.atomic_files import write_atomically
from project.core.errors import WrongReturn
from project.core.growing_rows import Row, append_rows, whole_rows, write_sorted
from project.core.images import read_picture
from project.core.json_files import read_object

MANIFEST, ROWS, RESULTS, REPORT = "manifest.json", "rows.jsonl", "results.json", "report.md"
READERS = 8
"""Threads that read pictures."""
INDENT = "\u00a0" * 4
"""In a Markdown table, where usual spaces would be dropped."""
Place = tuple[int, int]
"""Of a row: the item's in the benchmark, and its sample."""


class PictureRun(Generic[Item]):
    """The pictures of one folder, judged by one benchmark.

    Rows that an earlier run left are kept if their picture is the same file still. Pictures that are missing, cannot be
    read or could not be judged have no row; they are tried again by the next run.

    Args:
        benchmark: Who judges, and how.
        name: Of the benchmark.
        items: The official file or folder.
        folder: Of the pictures.
        out: Folder of rows and results.
        limit: Score only the first items; all, if None.

    Raises:
        FileNotFoundError: Without items, or without the folder of pictures.
        ValueError: For items that cannot be used, for a folder without any picture that is asked for, and for an `out`
            with rows of other items or another judge.
    """

    def __init__(
        self,
        benchmark: PictureBenchmark[Item],
        name: str,
        items: Path,
        folder: Path,
        out: Path,
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: give at least 1 item, or leave it out")
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: give the folder of the pictures")
        self.benchmark, self.name, self.path, self.folder, self.out = benchmark, name, items, folder, out
        self.read = benchmark.read_items(items)
        require_unique([item.id for item in self.read.items], "items")
        self.items = self.read.items[:limit]
        self.limit = limit
        self.pictures = [picture for item in self.items for picture in benchmark.pictures(folder, item)]
        if all(picture.file is None for picture in self.pictures):
            tried = listed(list(self.pictures[0].tried)) if self.pictures else "nothing, there are no items"
            raise ValueError(
                f"{folder} holds none of the {len(self.pictures)} pictures; tried for the first one: {tried} with "
                f"{', '.join(SUFFIXES)}: give the folder whose layout is the official one"
            )
        self._number = {item.id: n for n, item in enumerate(self.read.items)}
        files = sorted({picture.file for picture in self.pictures if picture.file is not None})
        with ThreadPoolExecutor(READERS) as readers:
            self._sha256 = dict(zip(files, readers.map(_sha256, files), strict=True))
        self.unjudged: dict[str, str] = {}
        self._check_identity()
        self.rows = self._kept()

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """Name -> paths that were tried, of the pictures that are not there."""
        return {picture.name: picture.tried for picture in self.pictures if picture.file is None}

    @property
    def asked_rows(self) -> list[Row]:
        """The rows of the items that are asked for, in the benchmark's order."""
        return [self.rows[place] for place in map(self._place, self.pictures) if place in self.rows]

    @property
    def left(self) -> list[Picture]:
        """The pictures that are there and have no row."""
        return [picture for picture in self.pictures if self._is_left(picture)]

    def judge(self, batch_size: int) -> Iterator[int]:
        """Judges what is left, and gives after each batch how many pictures it had.

        What was judged is kept. Raises ScoringFailed if nobody judges any longer, and OSError if rows cannot be
        written.
        """
        write_atomically(self.out / MANIFEST, json.dumps(self._identity(), indent=2) + "\n")
        write_sorted(self.out / ROWS, self.rows)
        for start in range(0, len(self.pictures), batch_size):
            # A judge's last digits may depend on what it sees together: batches are the same after an interruption.
            batch = [picture for picture in self.pictures[start : start + batch_size] if self._is_left(picture)]
            if not batch:
                continue
            new = {}
            for picture, found in self._judged(batch):
                if isinstance(found, str):
                    self.unjudged[picture.name] = found
                else:
                    row = {"id": picture.item, "sample": picture.sample, **self._source(picture), **found}
                    new[self._place(picture)] = row
            append_rows(self.out / ROWS, new.values())
            self.rows |= new
            yield len(batch)
        if list(self.rows) != sorted(self.rows):
            write_sorted(self.out / ROWS, self.rows)

    def so_far(self) -> float | None:
        """The official overall figure of what is judged."""
        return self.benchmark.score(self.items, self.asked_rows, "official").headline

    def finish(self, mode: Mode) -> Scored:
        """Writes results and report, and gives the figures of a mode; `coverage` is that of strict mode."""
        scored = {one: self.benchmark.score(self.items, self.asked_rows, one) for one in MODES}
        results: dict[str, Any] = {
            "benchmark": self.name,
            "mode": mode,
            "overall": scored[mode].headline,
            **{one: dict(found.figures) for one, found in scored.items()},
            "coverage": {
                one: {
                    "expected": found.coverage.expected,
                    "scored": found.coverage.scored,
                    "missing": list(found.coverage.missing),
                    "dropped": [list(pair) for pair in found.coverage.dropped],
                }
                for one, found in scored.items()
            },
            "pictures": {
                "asked": len(self.pictures),
                "judged": len(self.asked_rows),
                "missing": {name: list(tried) for name, tried in self.missing.items()},
                "not_judged": self.unjudged,
            },
            "manifest": {
                **self._identity(),
                "items_file": str(self.path),
                "pictures_folder": str(self.folder),
                "limit": self.limit,
                "samples": self.benchmark.samples,
            },
        }
        write_atomically(self.out / RESULTS, json.dumps(results, indent=2) + "\n")
        report = self.report(mode, scored[mode], scored["strict"])
        write_atomically(self.out / REPORT, report)
        return Scored(
            headline=scored[mode].headline,
            figures=scored[mode].figures,
            table=scored[mode].table,
            coverage=scored["strict"].coverage,
        )

    def report(self, mode: Mode, scored: Scored, strict: Scored) -> str:
        """The figures of a mode as Markdown, with who judged, and what is missing."""
        lines = [f"# {self.name}, {mode}", ""]
        lines += [
            f"- {key.replace('_', ' ')}: {value}" for key, value in self._identity().items() if key != "benchmark"
        ]
        lines += [f"- pictures: {self.folder}, {len(self.asked_rows)} of {len(self.pictures)} judged"]
        lines += [f"- coverage: {strict.coverage}"]
        if scored.coverage.dropped:
            lines += [f"- {mode}: {scored.coverage}"]
        lines += [f"- missing: {self.told_missing()}"] if self.missing else []
        lines += [f"- not judged: {self.told_unjudged()}"] if self.unjudged else []
        return "\n".join([*lines, "", *markdown(scored.table), ""])

    def told_missing(self) -> str:
        """The first missing pictures with the paths that were tried."""
        return listed([f"{name} (tried {', '.join(tried)})" for name, tried in self.missing.items()])

    def told_unjudged(self) -> str:
        """The first pictures that could not be judged, with the reasons."""
        return listed([f"{name} ({reason})" for name, reason in self.unjudged.items()])

    # ----------------------------------------------------------------- helpers

    def _identity(self) -> dict[str, Any]:
        """What must be the same for rows to stand in one folder."""
        return {
            "benchmark": self.name,
            "items": len(self.read.items),
            "items_sha256": self.read.sha256,
            "items_version": self.read.version,
            **self.benchmark.made_by(),
        }

    def _check_identity(self) -> None:
        """Raises ValueError if an earlier run left rows that were made otherwise."""
        if not whole_rows(self.out / ROWS):
            return
        wanted, found = self._identity(), read_object(self.out / MANIFEST, f"a folder with {ROWS}")
        differ = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        if differ:
            told = "; ".join(f"{key} {found.get(key)!r}, not {wanted.get(key)!r}" for key in differ)
            raise ValueError(f"{self.out} holds rows of another run ({told}): give another folder for the results")

    def _kept(self) -> dict[Place, Row]:
        """The rows of an earlier run whose picture is the same, and those of items beyond the limit."""
        asked = {self._place(picture): picture for picture in self.pictures}
        kept = {}
        for line, row in whole_rows(self.out / ROWS):
            if row.get("id") not in self._number or not isinstance(row.get("sample"), int):
                raise ValueError(f"{line}: {row.get('id')!r} is no item of this benchmark: take another folder")
            place = (self._number[row["id"]], row["sample"])
            picture = asked.get(place)
            if picture is None and place[0] < len(self.items):
                continue
            if picture is None or (picture.file is not None and self._source(picture).items() <= row.items()):
                kept[place] = row
        return {place: kept[place] for place in sorted(kept)}

    def _is_left(self, picture: Picture) -> bool:
        return picture.file is not None and self._place(picture) not in self.rows

    def _place(self, picture: Picture) -> Place:
        return self._number[picture.item], picture.sample

    def _source(self, picture: Picture) -> Row:
        """What a row says of a picture's file."""
        assert picture.file is not None
        file = picture.file.relative_to(self.folder).as_posix()
        quarter = {} if picture.quarter is None else {"quarter": picture.quarter}
        return {"picture": file, **quarter, "sha256": self._sha256[picture.file]}

    def _judged(self, batch: Sequence[Picture]) -> Iterator[tuple[Picture, Row | str]]:
        """Each picture of a batch with what was found, in order."""
        with ThreadPoolExecutor(READERS) as readers:
            files = list(dict.fromkeys(picture.file for picture in batch if picture.file is not None))
            read = dict(zip(files, readers.map(_read, files), strict=True))
        images = [_part(read[picture.file], picture.quarter) for picture in batch if picture.file is not None]
        found: list[Row | str] = [""] * len(batch)

        def shape(n: int) -> tuple[int, ...]:
            image = images[n]
            if isinstance(image, str):
                return ()
            return (1,) if self.benchmark.mixed_sizes else image.shape

        for size, group in groupby(sorted(range(len(batch)), key=shape), key=shape):
            places = list(group)
            if not size:
                for n in places:
                    found[n] = str(images[n])
                continue
            shown = [image for n in places if isinstance(image := images[n], np.ndarray)]
            for n, one in zip(places, self._found(shown, [batch[n] for n in places]), strict=True):
                found[n] = one
        return zip(batch, found, strict=True)

    def _found(self, images: Sequence[np.ndarray], pictures: Sequence[Picture]) -> list[Row | str]:
        """What the benchmark says of pictures it takes together; one that it refuses does not take others with it."""
        items = [self.items[self._number[picture.item]] for picture in pictures]
        try:
            return self.benchmark.judge(images, items, pictures)
        except WrongReturn:
            raise
        except ValueError as error:
            if len(images) == 1:
                return [str(error)]
        return [one for image, picture in zip(images, pictures, strict=True) for one in self._found([image], [picture])]


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


def _read(file: Path) -> np.ndarray | str:
    """The picture, or why it cannot be read."""
    try:
        return read_picture(file)
    except (ValueError, FileNotFoundError) as error:
        return str(error)


def _part(image: np.ndarray | str, quarter: int | None) -> np.ndarray | str:
    if quarter is None or isinstance(image, str):
        return image
    try:
        return np.ascontiguousarray(grid_crops(image)[quarter])
    except ValueError as error:
        return str(error)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
