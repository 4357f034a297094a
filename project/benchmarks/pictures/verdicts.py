"""What was found in each picture, for people and for comparisons: neither items nor judge are needed to read it.

`verdicts.jsonl` has a row for each judged picture that was asked for, with `id`, `sample`, `picture` (its file),
`prompt`, `reasoning` where the row has it, and `worth`, `told` and `counted` of `PictureBenchmark`. `sheet.png` shows
good and bad pictures. Both are made anew from the rows whenever a run ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from project.benchmarks.contact_sheet import SheetEntry, chosen, contact_sheet
from project.benchmarks.pictures.base import Item, PictureBenchmark
from project.core.atomic_files import write_atomically
from project.core.growing_rows import Row
from project.core.images import png

VERDICTS, SHEET = "verdicts.jsonl", "sheet.png"
COPIED = ("picture", "quarter", "reasoning")
"""Of a row, where it has them."""
Read = Callable[[Row], np.ndarray | str]
"""Gives the picture of a row, or the reason why it cannot be read."""


def verdict_rows(benchmark: PictureBenchmark[Item], items: Sequence[Item], rows: Sequence[Row]) -> list[Row]:
    """The rows of `verdicts.jsonl`, in the order of `rows`."""
    by_id = {item.id: item for item in items}
    return [
        {
            "id": row["id"],
            "sample": row["sample"],
            **{key: row[key] for key in COPIED if key in row},
            "prompt": benchmark.prompt(by_id[row["id"]]),
            "worth": benchmark.worth(by_id[row["id"]], row),
            "told": benchmark.told(by_id[row["id"]], row),
            "counted": asdict(benchmark.counted(by_id[row["id"]], row)),
        }
        for row in rows
    ]


def write_verdicts(
    out: Path, benchmark: PictureBenchmark[Item], items: Sequence[Item], rows: Sequence[Row], read: Read
) -> None:
    """Writes both files into `out`; without a picture to show there is no sheet. Raises OSError naming the file."""
    verdicts = verdict_rows(benchmark, items, rows)
    write_atomically(out / VERDICTS, "".join(f"{json.dumps(row)}\n" for row in verdicts))
    entries = sheet_entries(benchmark, items, verdicts, read)
    if entries:
        write_atomically(out / SHEET, png(contact_sheet(entries)))
    else:
        (out / SHEET).unlink(missing_ok=True)


def sheet_entries(
    benchmark: PictureBenchmark[Item], items: Sequence[Item], verdicts: Sequence[Row], read: Read, each: int = 4
) -> list[SheetEntry]:
    """Good and bad pictures, at most `each` of both, see `chosen`; those that cannot be read are left out."""
    by_id = {item.id: item for item in items}
    places = chosen([row["worth"] for row in verdicts], ["/".join(row["counted"]["groups"]) for row in verdicts], each)
    entries = []
    for row in (verdicts[place] for place in places):
        picture = read(row)
        if not isinstance(picture, str):
            lines = [*([row["reasoning"]] if row.get("reasoning") else []), *row["told"]]
            source = benchmark.source(by_id[row["id"]])
            entries.append(
                SheetEntry(picture=picture, title=row["prompt"], lines=lines, worth=row["worth"], source=source)
            )
    return entries
