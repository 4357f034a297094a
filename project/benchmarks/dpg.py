"""DPG-Bench: long, dense prompts, and a graph of yes/no questions for each.

Data: `dpg_bench/dpg_bench.csv` of https://github.com/TencentQQGYLab/ELLA, a row for each question, and
`dpg_bench/prompts/ITEM.txt`, the prompts. There are 1065 prompts.

Protocol: four pictures for each prompt, in a grid of 2 x 2. A judge answers every question for each of the four. The
official judge is mPLUG-large; any judge of yes/no questions will do, and the result names it.

Metric: a question counts as answered with no if one that it depends on is. The score is the mean over prompts of the
mean over pictures of the share of questions answered with yes.

The official scorer
  - drops the first question of the file, as if it were a second header;
  - drops, without a word in the result, every prompt that raises an error: one that is not in the file, or whose
    questions depend on a dropped question;
  - takes only the exact answer "yes" for one;
  - looks at dependencies once, in the order of the file: a question that stands before its parent does not see that
    the parent fell with its own parent;
  - makes the tables by category of the raw answers, before dependencies, of the last picture of the grid alone.
`strict` does none of it: an answer may have capitals and punctuation, dependencies reach as far as they go, and the
tables are made of the same zeroed answers of all pictures as the score. A parent that the file does not have cannot
fail. A prompt without a readable answer to every question is missing.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks.scoring import (
    Coverage,
    Mode,
    UnparsedAnswer,
    mean,
    percent,
    require_known,
    require_unique,
)
from project.core.json_files import read_object

PICTURES = 4
"""Pictures of each prompt."""
HOME = "https://github.com/TencentQQGYLab/ELLA, folder dpg_bench"
COLUMNS = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")
"""Columns that are read; `keywords`, `category_broad` and `category_detailed` repeat what others say."""
_WORD = re.compile(r"\W*(yes|no)\W*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class DPGQuestion:
    """A question about a picture.

    Args:
        number: Its `proposition_id`, unique within the prompt.
        text: The question.
        parents: Numbers of the questions that it depends on.
        category: Detailed category with its broad one in front, e.g. "entity - whole".
        first_row: Whether it is the first question of the file.
    """

    number: int
    text: str
    parents: tuple[int, ...]
    category: str
    first_row: bool = False

    @property
    def broad(self) -> str:
        """The broad category, e.g. "entity"."""
        return self.category.partition("-")[0].strip()


@dataclass(frozen=True, kw_only=True)
class DPGItem:
    """A prompt, with its questions in the order of the file."""

    id: str
    prompt: str
    questions: tuple[DPGQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class DPGRecord:
    """A judge's answers to the questions of the item `id`: for each picture, number of the question -> answer."""

    id: str
    answers: tuple[Mapping[int, str], ...]


@dataclass(frozen=True, kw_only=True)
class DPGScores:
    """Figures of DPG-Bench, 0 to 1 (papers print them times 100).

    Args:
        mode: How they were computed.
        overall: Mean over prompts; None if none was scored.
        items: Item -> score of each picture.
        broad: Broad category -> share of questions answered with yes.
        detailed: Detailed category -> the same.
        coverage: Which items are missing, and what was dropped.
    """

    mode: Mode
    overall: float | None
    items: Mapping[str, tuple[float, ...]]
    broad: Mapping[str, float]
    detailed: Mapping[str, float]
    coverage: Coverage

    def figures(self) -> dict[str, Any]:
        """Nested figures for logging; absent ones are None."""
        return {"overall": self.overall, "broad": dict(self.broad), "detailed": dict(self.detailed)}

    def table(self) -> list[tuple[str, ...]]:
        """Rows of category and score [%], the overall score first and detailed categories below their broad one."""
        rows: list[tuple[str, ...]] = [("", "score"), ("overall", percent(self.overall))]
        for broad, value in sorted(self.broad.items()):
            rows.append((broad, percent(value)))
            detailed = sorted(name for name in self.detailed if name.partition("-")[0].strip() == broad)
            rows += [(f"  {name}", percent(self.detailed[name])) for name in detailed]
        return rows


def read_items(file: Path) -> tuple[DPGItem, ...]:
    """The prompts of `dpg_bench.csv`, in the order of the file.

    Raises FileNotFoundError without the file, and ValueError (file:line) for a missing column, a number that is none,
    a question without a text, or two questions of a prompt with one number.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: take dpg_bench.csv from {HOME}")
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream)
        if absent := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise ValueError(f"{file}:1: lacks the columns {', '.join(absent)}: take dpg_bench.csv from {HOME}")
        try:
            return items_of((f"{file}:{rows.line_num}", row) for row in rows)
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: is not UTF-8 text (byte {error.start}): copy it again") from None
        except csv.Error as error:
            raise ValueError(f"{file}:{rows.line_num}: is no CSV ({error}): copy it again") from None


def items_of(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[DPGItem, ...]:
    """The prompts of (place, row) pairs with `COLUMNS`. Raises ValueError, see `read_items`."""
    prompts: dict[str, str] = {}
    questions: dict[str, dict[int, DPGQuestion]] = defaultdict(dict)
    for place, row in rows:
        name = str(row["item_id"])
        number = _number(place, "proposition_id", row["proposition_id"])
        if number in questions[name]:
            raise ValueError(f"{place}: question {number} of {name} occurs twice: give one of them another number")
        text = str(row["question_natural_language"] or "").strip()
        if not text:
            raise ValueError(f"{place}: question {number} of {name} has no text")
        parents = [_number(place, "dependency", part) for part in str(row["dependency"]).split(",")]
        first_row = not prompts
        prompts.setdefault(name, str(row["text"]))
        questions[name][number] = DPGQuestion(
            number=number,
            text=text,
            parents=tuple(parent for parent in parents if parent != 0),
            category=str(row["tuple"]).partition("(")[0].strip(),
            first_row=first_row,
        )
    return tuple(DPGItem(id=n, prompt=p, questions=tuple(questions[n].values())) for n, p in prompts.items())


def _number(place: str, column: str, value: Any) -> int:
    try:
        return int(str(value).strip())
    except ValueError:
        raise ValueError(f"{place}: {column!r} is {value!r}, not a number (or numbers with commas)") from None


def read_prompts(path: Path) -> dict[str, str]:
    """Item -> prompt of the folder `prompts` with a file ITEM.txt each, or of a JSON file {"ITEM.txt": prompt}.

    Raises FileNotFoundError without the path or without prompts in it, and ValueError for what is no text.
    """
    if path.is_dir():
        prompts = {file.stem: file.read_text(encoding="utf-8").strip() for file in sorted(path.glob("*.txt"))}
        if not prompts:
            raise FileNotFoundError(f"{path} holds no ITEM.txt: give the folder prompts of {HOME}")
        return prompts
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the folder prompts of {HOME}")
    prompts = {name.removesuffix(".txt"): text for name, text in read_object(path).items()}
    if strange := [name for name, text in prompts.items() if not isinstance(text, str) or not text.strip()]:
        raise ValueError(f"{path}: the prompt {strange[0]!r} is no text: copy the file again")
    return {name: text.strip() for name, text in prompts.items()}


def grid_crops(picture: np.ndarray, number: int = PICTURES) -> tuple[np.ndarray, ...]:
    """The pictures of a grid, row by row from the top left.

    Args:
        picture: [H, W, 3].
        number: 1, or 4 for a grid of 2 x 2.

    Raises ValueError for another number, and for a height or width that is odd where there are four.
    """
    if number == 1:
        return (picture,)
    height, width = picture.shape[:2]
    if number != PICTURES or height % 2 or width % 2:
        raise ValueError(
            f"a picture of {height} x {width} is no grid of {number} pictures: give one picture, or a 2 x 2 grid of "
            "pictures of equal size"
        )
    halves = (slice(None, height // 2), slice(height // 2, None)), (slice(None, width // 2), slice(width // 2, None))
    return tuple(picture[rows, columns] for rows in halves[0] for columns in halves[1])


def parse_answer(text: str) -> bool:
    """Whether an answer says yes. Raises UnparsedAnswer unless it is the word yes or no, with any punctuation."""
    found = _WORD.fullmatch(text)
    if found is None:
        raise UnparsedAnswer("it is neither yes nor no", text)
    return found[1].lower() == "yes"


def score(
    items: Sequence[DPGItem],
    records: Sequence[DPGRecord],
    mode: Mode,
    pictures: int = PICTURES,
    skip_first_row: bool | None = None,
) -> DPGScores:
    """Figures of what a judge said of the items.

    Args:
        items: What was to be drawn; items without a record are missing.
        records: Answers, in any order.
        mode: See the module.
        pictures: Pictures of each item. In strict mode, a record of another number is missing.
        skip_first_row: Whether to drop the first question of the file; by default only in official mode.

    Raises ValueError for several records of one item, and in strict mode for records of no item.
    """
    require_unique((item.id for item in items), "items")
    require_unique((record.id for record in records), "records")
    asked = {item.id: item.questions for item in items}
    dropped: list[tuple[str, str]] = []
    skip = mode == "official" if skip_first_row is None else skip_first_row
    for item in items if skip else ():
        for question in item.questions:
            if question.first_row:
                asked[item.id] = tuple(other for other in item.questions if other != question)
                dropped.append((item.id, f"question {question.number}, the first row of the file"))
    if mode == "strict":
        require_known((record.id for record in records), asked, "records")
    scores: dict[str, tuple[float, ...]] = {}
    broad: dict[str, list[bool]] = defaultdict(list)
    detailed: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        try:
            raw, zeroed = _judged(asked.get(record.id, ()), record.answers, mode, pictures)
        except _NotScored as error:
            if mode == "official":
                dropped.append((record.id, str(error)))
            continue
        scores[record.id] = tuple(sum(answers.values()) / len(answers) for answers in zeroed)
        for answers in zeroed if mode == "strict" else raw[-1:]:
            for question in asked[record.id]:
                broad[question.broad].append(answers[question.number])
                detailed[question.category].append(answers[question.number])
    return DPGScores(
        mode=mode,
        overall=mean([sum(values) / len(values) for values in scores.values()]),
        items=scores,
        broad={name: sum(hits) / len(hits) for name, hits in broad.items()},
        detailed={name: sum(hits) / len(hits) for name, hits in detailed.items()},
        coverage=Coverage(
            expected=len(items),
            missing=tuple(item.id for item in items if item.id not in scores),
            dropped=tuple(dropped),
        ),
    )


class _NotScored(Exception):
    """A record has no score; the message says why."""


Answers = dict[int, bool]


def _judged(
    questions: Sequence[DPGQuestion], answers: Sequence[Mapping[int, str]], mode: Mode, pictures: int
) -> tuple[list[Answers], list[Answers]]:
    """Number -> answer of each picture, before and after dependencies. Raises _NotScored."""
    if not questions:
        raise _NotScored("the file has no questions for it")
    if not answers or (mode == "strict" and len(answers) != pictures):
        raise _NotScored(f"{len(answers)} pictures were judged")
    if absent := [q.number for q in questions for given in answers if q.number not in given]:
        raise _NotScored(f"question {absent[0]} was not answered")
    numbers = {question.number for question in questions}
    if mode == "strict":
        try:
            raw = [{q.number: parse_answer(given[q.number]) for q in questions} for given in answers]
        except UnparsedAnswer as error:
            raise _NotScored(str(error)) from None
        return raw, [_cascaded(questions, given) for given in raw]
    if absent := [parent for question in questions for parent in question.parents if parent not in numbers]:
        raise _NotScored(f"a question depends on question {absent[0]}, which was dropped or is not in the file")
    raw = [{q.number: given[q.number] == "yes" for q in questions} for given in answers]
    return raw, [_zeroed(questions, given) for given in raw]


def _zeroed(questions: Sequence[DPGQuestion], answers: Answers) -> Answers:
    """One pass in the order of the file: no where a parent, as answered so far, is no."""
    after = dict(answers)
    for question in questions:
        if not all(after.get(parent, True) for parent in question.parents):
            after[question.number] = False
    return after


def _cascaded(questions: Sequence[DPGQuestion], answers: Answers) -> Answers:
    """Passes until nothing changes, so that the order of the file does not matter."""
    while (after := _zeroed(questions, answers)) != answers:
        answers = after
    return answers
