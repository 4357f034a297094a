"""Judging a folder of pictures: rows that survive an interruption, and what is said of them at the end.

Files of the folder `out`: manifest.json says who judges what, and is written before any row; rows.jsonl has a row for
each judged picture; results.json, verdicts.jsonl, sheet.png and report.md are written at the end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, Generic

import numpy as np

from project.benchmarks.dpg import grid_crops
from project.benchmarks.pictures.asked import AskedItems, identity
from project.benchmarks.pictures.base import SUFFIXES, Item, Picture, PictureBenchmark, Scored
from project.benchmarks.pictures.report import report_text
from project.benchmarks.pictures.verdicts import write_verdicts
from project.benchmarks.scoring import MODES, Mode, listed
from project.core.atomic_files import write_atomically
from project.core.errors import WrongReturn
from project.core.growing_rows import Row, append_rows, whole_rows, write_sorted
from project.core.images import png, read_picture, texts_in
from project.core.json_files import read_object

MANIFEST, ROWS, RESULTS, REPORT = "manifest.json", "rows.jsonl", "results.json", "report.md"
READERS = 8
"""Threads that read pictures."""
REASONING = "reasoning"
"""Key of the text that a drawn picture's file carries."""
Place = tuple[int, int]
"""Of a row: the item's in the benchmark, and its sample."""


class PictureRun(Generic[Item]):
    """The pictures of one folder, judged by one benchmark.

    Rows that an earlier run left are kept if their picture is the same file still. Pictures that are missing, cannot be
    read or could not be judged have no row; they are tried again by the next run.

    Args:
        benchmark: Who judges, and how.
        items: What is asked for.
        folder: Of the pictures.
        out: Folder of rows and results.
        drawing: How the pictures are drawn, as JSON holds it, where they are drawn meanwhile (`look`); None for a
            folder that is there.
        rank: Of several processes that judge the pictures together, each with a file of rows: its number.

    Raises:
        FileNotFoundError: Without the folder of pictures.
        ValueError: For a folder without any picture that is asked for, and for an `out` with rows of other items,
            another judge or other settings of the drawing.
    """

    def __init__(
        self,
        benchmark: PictureBenchmark[Item],
        items: AskedItems[Item],
        folder: Path,
        out: Path,
        drawing: Mapping[str, Any] | None = None,
        rank: int = 0,
    ) -> None:
        if drawing is None and not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: give the folder of the pictures")
        self.benchmark, self.folder, self.out, self.drawing = benchmark, folder, out, drawing
        self.read, self.items, self.path = items.read, items.asked, items.path
        self.rows_file = out / (f"rows.{rank}.jsonl" if rank else ROWS)
        self._number = {item.id: n for n, item in enumerate(self.read.items)}
        self._item = {item.id: item for item in self.items}
        self._pictures: dict[Place, Picture] = {}
        self._sha256: dict[Path, str] = {}
        self._lock = Lock()
        self.look(self.items)
        if drawing is None and all(picture.file is None for picture in self.pictures):
            raise ValueError(
                f"{folder} holds none of the {len(self.pictures)} pictures; tried for the first one: "
                f"{listed(list(self.pictures[0].tried))} with {', '.join(SUFFIXES)}: give the folder whose layout is "
                "the official one"
            )
        self.unjudged: dict[str, str] = {}
        """Name of a picture -> why it could not be judged."""
        self._check_identity()
        self.rows = self._kept()

    @property
    def pictures(self) -> list[Picture]:
        """All that are asked for, in the benchmark's order."""
        return list(self._pictures.values())

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """Name -> paths that were tried, of the pictures that are not there."""
        return {picture.name: picture.tried for picture in self.pictures if picture.file is None}

    @property
    def asked_rows(self) -> list[Row]:
        """The rows of the items that are asked for, in the benchmark's order."""
        with self._lock:
            return [self.rows[place] for place in self._pictures if place in self.rows]

    @property
    def left(self) -> list[Picture]:
        """The pictures that are there and have no row."""
        return [picture for picture in self.pictures if self._is_left(picture)]

    def look(self, items: Iterable[Item]) -> list[Picture]:
        """Looks for the pictures of items again, and gives them."""
        found = {self._place(p): p for item in items for p in self.benchmark.pictures(self.folder, item)}
        files = sorted({picture.file for picture in found.values() if picture.file is not None})
        with ThreadPoolExecutor(READERS) as readers:
            self._sha256 |= zip(files, readers.map(_sha256, files), strict=True)
        self._pictures |= found
        return list(found.values())

    def announce(self) -> None:
        """Writes who judges what; without it rows cannot be gone on from. Raises OSError naming the file."""
        write_atomically(self.out / MANIFEST, json.dumps(self.identity(), indent=2) + "\n")

    def begin(self) -> None:
        """Writes who judges what, and the rows that are kept, in one file. Raises OSError naming it."""
        self.announce()
        self._write_rows()

    def judge(self, batch_size: int) -> Iterator[int]:
        """Judges what is left, and gives after each batch how many pictures it had.

        What was judged is kept. Raises as `judge_batch`.
        """
        self.begin()
        pictures = self.pictures
        for start in range(0, len(pictures), batch_size):
            if number := self.judge_batch(pictures[start : start + batch_size]):
                yield number
        if list(self.rows) != sorted(self.rows):
            self._write_rows()

    def judge_batch(self, pictures: Sequence[Picture]) -> int:
        """Judges those that are left of some pictures, and gives their number; another thread may do so.

        A judge's last digits may depend on what it sees together: give the same pictures after an interruption. Raises
        ScoringFailed if nobody judges any longer, and OSError if rows cannot be written.
        """
        batch = [picture for picture in pictures if self._is_left(picture)]
        if not batch:
            return 0
        new, unjudged = {}, {}
        for picture, found in self._judged(batch):
            if isinstance(found, str):
                unjudged[picture.name] = found
            else:
                row = {"id": picture.item, "sample": picture.sample, **self._source(picture), **found}
                if self.drawing is not None and (reasoning := self._reasoning(picture)):
                    row["reasoning"] = reasoning
                new[self._place(picture)] = row
        append_rows(self.rows_file, new.values())
        with self._lock:
            self.rows |= new
            self.unjudged |= unjudged
        return len(batch)

    def save(self, item: Item, sample: int, picture: np.ndarray, reasoning: str = "") -> None:
        """Saves a picture that was drawn, uint8 [height, width, 3], with its reasoning. Raises OSError naming it."""
        texts = {REASONING: reasoning} if reasoning else {}
        write_atomically(self.folder / f"{self.benchmark.place(item, sample)}.png", png(picture, texts))

    def take(self, rows: Iterable[Row], unjudged: Mapping[str, str]) -> None:
        """Adds what other processes judged, and looks for their pictures."""
        self.rows |= {(self._number[row["id"]], row["sample"]): row for row in rows}
        self.unjudged |= unjudged
        self.look(self.items)

    def so_far(self) -> float | None:
        """The official overall figure of what is judged."""
        return self.benchmark.score(self.items, self.asked_rows, "official").headline

    def finish(self, mode: Mode, rounds: Mapping[str, Any] | None = None) -> Scored:
        """Writes results and report, and gives the figures of a mode; `coverage` is that of strict mode.

        `rounds` are the figures of pictures that were made from these.
        """
        scored = {one: self.benchmark.score(self.items, self.asked_rows, one) for one in MODES}
        results: dict[str, Any] = {
            "benchmark": self.benchmark.name(),
            "mode": mode,
            "overall": scored[mode].headline,
            "headlines": {one: found.headline for one, found in scored.items()},
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
                **self.identity(),
                "items_file": str(self.path),
                "pictures_folder": str(self.folder),
                "asked": len(self.items),
                "samples": self.benchmark.samples,
            },
            **({"rounds": rounds} if rounds else {}),
        }
        write_atomically(self.out / RESULTS, json.dumps(results, indent=2) + "\n")
        write_verdicts(self.out, self.benchmark, self.items, self.asked_rows, self._shown)
        report = report_text(self, mode, scored[mode], scored["strict"], rounds or {})
        write_atomically(self.out / REPORT, report)
        return Scored(
            headline=scored[mode].headline,
            figures=scored[mode].figures,
            table=scored[mode].table,
            coverage=scored["strict"].coverage,
        )

    def told_missing(self) -> str:
        """The first missing pictures with the paths that were tried."""
        return listed([f"{name} (tried {', '.join(tried)})" for name, tried in self.missing.items()])

    def told_unjudged(self) -> str:
        """The first pictures that could not be judged, with the reasons."""
        return listed([f"{name} ({reason})" for name, reason in self.unjudged.items()])

    # ----------------------------------------------------------------- helpers

    def identity(self) -> dict[str, Any]:
        """See `asked.identity`."""
        return identity(self.benchmark, self.read, self.drawing)

    def _check_identity(self) -> None:
        """Raises ValueError if an earlier run left rows that were made otherwise."""
        if not any(map(whole_rows, self._row_files())):
            return
        wanted, found = self.identity(), read_object(self.out / MANIFEST, f"a folder with {ROWS}")
        differ = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        if differ:
            told = "; ".join(f"{key} {found.get(key)!r}, not {wanted.get(key)!r}" for key in differ)
            raise ValueError(f"{self.out} holds rows of another run ({told}): give another folder for the results")

    def _kept(self) -> dict[Place, Row]:
        """The rows of an earlier run whose picture is the same, and those of items beyond the limit."""
        kept = {}
        for line, row in (found for file in self._row_files() for found in whole_rows(file)):
            if row.get("id") not in self._number or not isinstance(row.get("sample"), int):
                raise ValueError(f"{line}: {row.get('id')!r} is no item of this benchmark: take another folder")
            place = (self._number[row["id"]], row["sample"])
            picture = self._pictures.get(place)
            if picture is None and row["id"] in self._item:
                continue
            if picture is None or (picture.file is not None and self._source(picture).items() <= row.items()):
                kept[place] = row
        return {place: kept[place] for place in sorted(kept)}

    def _row_files(self) -> list[Path]:
        """Those of all processes; there is one where one process judged, or the run came to its end."""
        return sorted(self.out.glob("rows*.jsonl"))

    def _write_rows(self) -> None:
        write_sorted(self.out / ROWS, self.rows)
        for file in self._row_files():
            if file.name != ROWS:
                file.unlink()

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

    def _shown(self, row: Row) -> np.ndarray | str:
        """The picture of a row, or why it cannot be read."""
        return _part(_read(self.folder / row["picture"]), row.get("quarter"))

    def _reasoning(self, picture: Picture) -> str | None:
        """What was written before the picture was drawn, see `save`."""
        return None if picture.file is None else texts_in(picture.file).get(REASONING)

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
        items = [self._item[picture.item] for picture in pictures]
        try:
            return self.benchmark.judge(images, items, pictures)
        except WrongReturn:
            raise
        except ValueError as error:
            if len(images) == 1:
                return [str(error)]
        return [one for image, picture in zip(images, pictures, strict=True) for one in self._found([image], [picture])]


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
