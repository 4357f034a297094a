"""MME and MMBench files -> question files (see `project.data.choices`). Nothing of either is part of the project.

    python -m project.data.question_files mme MME_Benchmark_release_version mme.jsonl
    python -m project.data.question_files mmbench MMBench_DEV_EN.tsv mmbench.jsonl
    python -m project.data.question_files mmbench-circular MMBench_DEV_EN.tsv mmbench.jsonl

**MME** (arXiv 2306.13394): a folder for each category, in it `NAME.txt` with a line "question TAB Yes|No" for each
question, and the picture NAME; both beside each other, or in `questions_answers_YN` and `images`. A category becomes a
set, a picture an item: the official score of a category is 100 times the sum of its accuracy (`set/CATEGORY`) and its
accuracy+ (`set_items/CATEGORY`).

**MMBench** (arXiv 2307.06281): a table with the columns index, question, hint, A to D, answer, category, l2-category
and image (base64, or the index of the row that has the picture). A category becomes a set, an l2-category a kind.
Pictures are written into a folder beside the file. `mmbench-circular` asks every question with its choices in each
cyclic order; the official CircularEval is then the figure `items`. Rows of a file that holds the orders already
(indices from 1,000,000) are brought together as well.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from project.core.atomic_files import write_atomically

PICTURES = (".jpg", ".jpeg", ".png")
CIRCLE = 1_000_000
"""What MMBench adds to the index of a question for each further order of its choices."""


def mme_rows(folder: Path, out: Path) -> Iterator[dict[str, Any]]:
    """The questions of an MME folder; pictures are named as seen from the folder `out`.

    Raises FileNotFoundError for a question without its picture, ValueError for a line that is no question, or none.
    """
    files = sorted({*folder.glob("*/*.txt"), *folder.glob("*/questions_answers_YN/*.txt")})
    if not files:
        raise ValueError(f"{folder} holds no CATEGORY/NAME.txt: give the folder of MME, unpacked")
    for file in files:
        category = file.relative_to(folder).parts[0]
        picture = _picture(folder / category, file)
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if not line.strip():
                continue
            question, _, answer = line.strip().rpartition("\t")
            if not question or answer.strip().lower() not in ("yes", "no"):
                raise ValueError(
                    f"{file}:{number}: is no question with Yes or No behind a tab: download the file again"
                )
            yield {
                "id": f"{category}/{file.stem}/{number}",
                "image": os.path.relpath(picture, out),
                "question": question.strip(),
                "answer": answer.strip().lower(),
                "set": category,
                "item": f"{category}/{file.stem}",
            }


def _picture(category: Path, file: Path) -> Path:
    names = [place / f"{file.stem}{suffix}" for place in (category / "images", category) for suffix in PICTURES]
    for name in names:
        if name.is_file():
            return name
    raise FileNotFoundError(f"{file}: there is no picture {file.stem} in {category}: unpack all of MME")


def mmbench_rows(file: Path, pictures: Path, circular: bool = False) -> Iterator[dict[str, Any]]:
    """The questions of an MMBench table, whose pictures are written into a folder `pictures`.

    Args:
        circular: ask each with its choices in every cyclic order.

    Raises ValueError (file and index) for a row that is no question with a known answer, or a picture that is none.
    """
    for row in _table(file):
        index = row["index"]
        place = f"{file}: index {index}"
        options = [row[letter] for letter in "ABCD" if row.get(letter) not in (None, "", "nan")]
        letter = row.get("answer") or ""
        if len(letter) != 1 or letter not in "ABCD"[: len(options)]:
            raise ValueError(f"{place}: its answer {letter!r} is the letter of no choice: take a split with answers")
        right = options["ABCD".index(letter)]
        picture = _written(row["image"], index, pictures, place)
        orders = range(len(options)) if circular else range(1)
        for turn in orders:
            yield {
                "id": f"{index}/{turn}" if circular else index,
                "image": f"{pictures.name}/{picture}",
                "question": "\n".join(t for t in (row.get("hint"), row["question"]) if t not in (None, "", "nan")),
                "choices": options[turn:] + options[:turn],
                "answer": right,
                "set": row.get("category") or "all",
                "kind": row.get("l2-category") or "all",
                "item": str(int(index) % CIRCLE) if index.isdecimal() else index,
            }


def _table(file: Path) -> Iterator[dict[str, str]]:
    needed = ("index", "question", "A", "B", "image")
    csv.field_size_limit(sys.maxsize)  # a picture is one field
    with file.open(encoding="utf-8-sig", newline="") as stream:
        table = csv.DictReader(stream, delimiter="\t")
        if missing := [name for name in needed if name not in (table.fieldnames or ())]:
            raise ValueError(f"{file} has no column {missing[0]!r}: give a table of MMBench (.tsv)")
        yield from table


def _written(image: str, index: str, pictures: Path, place: str) -> str:
    """The name of a row's picture, which is written into the folder unless it is that of another row."""
    if image.isdecimal() and (pictures / f"{image}.jpg").is_file():
        return f"{image}.jpg"
    try:
        content = base64.b64decode(image, validate=True)
    except binascii.Error:
        raise ValueError(f"{place}: its image is no base64 and no index of a row above: download the file") from None
    name = f"{index}.jpg"
    write_atomically(pictures / name, content)
    return name


def write_question_file(kind: str, source: str | Path, out: str | Path) -> None:
    """Reads MME (`mme`) or MMBench (`mmbench`, `mmbench-circular`) and writes the question file. Raises as the readers.

    Raises FileNotFoundError if the source is not there.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}: download the benchmark from its authors")
    if kind == "mme":
        rows = list(mme_rows(source, out.parent))
    else:
        rows = list(mmbench_rows(source, out.with_name(f"{out.stem}_pictures"), kind == "mmbench-circular"))
    write_atomically(out, "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("mme", "mmbench", "mmbench-circular"):
        sys.exit("usage: python -m project.data.question_files mme|mmbench|mmbench-circular SOURCE OUT.jsonl")
    try:
        write_question_file(*sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
