"""TIIF-Bench: does a picture follow a prompt with several conditions? Yes/no questions on 39 types of prompts.

Data: `data/testmini_prompts/TYPE_prompts.jsonl` and `data/testmini_eval_prompts/TYPE_eval_prompts.jsonl` of
https://github.com/A113N-W3I/TIIF-Bench; line n of the one belongs to line n of the other. testmini has 277 prompts with
1446 questions. The repository states no licence, so nothing of it comes with this project.

Protocol: one picture for the short and one for the long description of every prompt. A judge answers all questions of a
picture in one text, a line for each.

Metric: accuracy of a type over all of its questions; an attribute is the mean of its types, the overall score the mean
of the nine attributes. Short and long descriptions are scored apart.

The official scorer
  - rounds the accuracy of a type to 4 places before it averages, and every mean again;
  - leaves out types, attributes and answers that are not there, so that the overall score may be a mean of fewer;
  - pairs answers and questions from the front where their numbers differ;
  - weighs a group ("Advanced") by types, not by attributes: `text` and `style` count as little as `color+2d`.
`strict` rounds nothing, counts an item whose answers do not fit its questions as missing, and gives no mean of an
attribute, group or benchmark that lacks a type.

The `comparison` questions of one release of the full test do not belong to their prompts. testmini is not affected.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from project.core.json_files import read_rows

Length = Literal["short", "long"]
LENGTHS: tuple[Length, ...] = ("short", "long")
TEMPLATE_VERSION = "1"
HOME = "https://github.com/A113N-W3I/TIIF-Bench"
PLACES = 4
"""Decimal places of official figures."""

_REASONING = ("numeracy", "comparison", "differentiation", "negation")
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "Attribute": ("shape+color", "color+texture", "texture+color", "shape+texture"),
    "Relation": ("2d_spatial_relation", "3d_spatial_relation", "action+2d", "action+3d"),
    "Reasoning": ("numeracy", "negation", "differentiation", "comparison"),
    "Attribute+Relation": (
        "action+color", "action+texture", "color+2d", "color+3d", "shape+2d", "shape+3d", "texture+2d", "texture+3d",
    ),
    "Attribute+Reasoning": tuple(f"{first}+{second}" for first in _REASONING for second in ("color", "texture")),
    "Relation+Reasoning": tuple(f"{first}+{second}" for first in _REASONING for second in ("2d", "3d")),
    "Text Generation": ("text",),
    "Style Control": ("style",),
    "Complex": ("real_world",),
}  # fmt: skip
"""Attribute -> its types, in the order of the official sums: it decides how a 5 in the fifth place is rounded."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Basic": ("Attribute", "Relation", "Reasoning"),
    "Advanced": (
        "Attribute+Relation", "Attribute+Reasoning", "Relation+Reasoning", "Text Generation", "Style Control",
    ),
    "Real World": ("Complex",),
}  # fmt: skip
"""Group -> its attributes."""
TYPES = tuple(kind for kinds in ATTRIBUTES.values() for kind in kinds)

_YES_NO = re.compile(r"(yes|no)\b", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:\(?(?:Q|question )?(\d+)[.):]\s*)?[*_`\"']*(yes|no)\b", re.IGNORECASE)

ByLength = Mapping[Length, float | None]


@dataclass(frozen=True, kw_only=True)
class TIIFItem:
    """One picture to draw: a description of one length, with the questions that a judge gets.

    Args:
        id: `TYPE/LINE/LENGTH`, with the line counted from 0.
        type: One of `TYPES`.
        length: Which description it is.
        prompt: The description.
        questions: Q yes/no questions.
        expected: Q right answers, as the file writes them.
    """

    id: str
    type: str
    length: Length
    prompt: str
    questions: tuple[str, ...]
    expected: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TIIFRecord:
    """A judge's answers, "yes" or "no", to the questions of the item `id`."""

    id: str
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TIIFScores:
    """Figures of TIIF-Bench, 0 to 1; None where nothing, or in strict mode not everything, was measured.

    Args:
        mode: How they were computed.
        types: Type -> length -> accuracy over its questions.
        attributes: Attribute -> length -> mean of its types.
        groups: Group -> length -> mean of the types of its attributes.
        overall: Length -> mean of the nine attributes.
        mean_accuracy: Mean over all types and both lengths.
        coverage: Which items are missing.
    """

    mode: Mode
    types: Mapping[str, ByLength]
    attributes: Mapping[str, ByLength]
    groups: Mapping[str, ByLength]
    overall: ByLength
    mean_accuracy: float | None
    coverage: Coverage

    def figures(self) -> dict[str, Any]:
        """Nested figures for logging; absent ones are None."""
        return {
            "overall": dict(self.overall),
            "group": {name: dict(values) for name, values in self.groups.items()},
            "attribute": {name: dict(values) for name, values in self.attributes.items()},
            "type": {name: dict(values) for name, values in self.types.items()},
            "mean_accuracy": self.mean_accuracy,
        }

    def table(self) -> list[tuple[str, ...]]:
        """Rows of category, short and long [%], the overall score first and attributes below their group."""
        rows = [("", *LENGTHS), ("overall", *self._cells(self.overall))]
        for group, attributes in GROUPS.items():
            rows.append((group, *self._cells(self.groups[group])))
            rows += [(f"  {name}", *self._cells(self.attributes[name])) for name in attributes]
        return rows

    def _cells(self, values: ByLength) -> tuple[str, ...]:
        return tuple(percent(values[length]) for length in LENGTHS)


def read_items(prompts: Path, questions: Path, lengths: Sequence[Length] = LENGTHS) -> tuple[TIIFItem, ...]:
    """The items of all types in the two folders of a test, types in alphabetical order.

    Raises FileNotFoundError for a folder or file that is missing, and ValueError (file:line) for what does not fit
    together: another type than the file's name says, numbers of lines, questions or answers that differ.
    """
    files = sorted(prompts.glob("*_prompts.jsonl"))
    if not files:
        raise FileNotFoundError(
            f"{prompts} holds no TYPE_prompts.jsonl: give the folder testmini_prompts (or test_prompts) of {HOME}"
        )
    items: list[TIIFItem] = []
    for file in files:
        kind = file.name.removesuffix("_prompts.jsonl")
        if kind not in TYPES:
            raise ValueError(f"{file}: {kind!r} is no type of TIIF-Bench: move the file away")
        asked = questions / f"{kind}_eval_prompts.jsonl"
        if not asked.is_file():
            raise FileNotFoundError(f"{asked} is missing: it holds the questions of {file.name} and comes from {HOME}")
        items += _items_of(kind, file, asked, lengths)
    return tuple(items)


def _items_of(kind: str, prompts: Path, questions: Path, lengths: Sequence[Length]) -> list[TIIFItem]:
    drawn, asked = list(read_rows(prompts)), list(read_rows(questions))
    if len(drawn) != len(asked):
        raise ValueError(
            f"{questions} has {len(asked)} lines and {prompts} has {len(drawn)}: take both from the same release"
        )
    items = []
    for line, ((place, row), (asked_place, entry)) in enumerate(zip(drawn, asked, strict=True)):
        for where, found in ((place, row), (asked_place, entry)):
            if found.get("type") != kind:
                raise ValueError(f"{where}: 'type' is {found.get('type')!r}, not {kind!r} as the file's name says")
        wanted = _texts(asked_place, entry, "yn_question_list")
        expected = _texts(asked_place, entry, "yn_answer_list")
        if len(wanted) != len(expected):
            raise ValueError(f"{asked_place}: has {len(wanted)} questions and {len(expected)} answers: copy it again")
        if strange := [answer for answer in expected if answer.strip().lower() not in ("yes", "no")]:
            raise ValueError(f"{asked_place}: 'yn_answer_list' holds {strange[0]!r}, neither yes nor no")
        for length in lengths:
            prompt = row.get(f"{length}_description")
            if not isinstance(prompt, str) or not prompt.strip():
                raise ValueError(f"{place}: '{length}_description' is {prompt!r}, not a text")
            items.append(
                TIIFItem(
                    id=f"{kind}/{line}/{length}",
                    type=kind,
                    length=length,
                    prompt=prompt,
                    questions=tuple(question.strip() for question in wanted),
                    expected=tuple(expected),
                )
            )
    return items


def _texts(place: str, row: Mapping[str, Any], column: str) -> list[str]:
    values = row.get(column)
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{place}: {column!r} is {values!r}, not a list of texts")
    return values


def judge_text(item: TIIFItem) -> str:
    """What a judge is asked beside the picture: all questions, numbered, and the form of the answer."""
    number = len(item.questions)
    lines = "\n".join(f"{n}. {question}" for n, question in enumerate(item.questions, start=1))
    return (
        f"Look closely at the picture and answer {number} question{'s' if number > 1 else ''} about it. Judge only "
        "what can be seen: where the picture does not clearly show it, the answer is no.\n\n"
        f"{lines}\n\n"
        f"Write {number} line{'s' if number > 1 else ''}, one for each question, in the same order. Each line is a "
        "single word, yes or no. Write nothing else."
    )


def parse_answers(text: str, number: int, mode: Mode = "strict") -> tuple[str, ...]:
    """The answers, "yes" or "no", in a judge's text.

    Official: lines that begin with yes or no; all other lines are skipped. Strict: every line that is not blank is an
    answer. It may carry its own number, and emphasis, but a line without an answer is refused: one skipped line gives
    all later answers to the wrong questions.

    Args:
        text: What the judge wrote.
        number: Number of questions, Q.
        mode: See above.

    Raises UnparsedAnswer unless there are exactly Q answers.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    answers: list[str] = []
    for line in lines:
        if mode == "official":
            if found := _YES_NO.match(line):
                answers.append(found[1].lower())
            continue
        found = _NUMBERED.match(line)
        if found is None:
            raise UnparsedAnswer(f"the line {line[:60]!r} does not say yes or no", text)
        if found[1] is not None and int(found[1]) != len(answers) + 1:
            raise UnparsedAnswer(f"answer {len(answers) + 1} has the number {found[1]}", text)
        answers.append(found[2].lower())
    if len(answers) != number:
        raise UnparsedAnswer(f"{len(answers)} answers to {number} questions", text)
    return tuple(answers)


def score(items: Sequence[TIIFItem], records: Sequence[TIIFRecord], mode: Mode) -> TIIFScores:
    """Figures of what a judge said of the items.

    Args:
        items: What was to be drawn; items without a record are missing.
        records: Answers, in any order.
        mode: See the module.

    Raises ValueError for several records of one item, and for records of no item.
    """
    require_unique((item.id for item in items), "items")
    require_unique((record.id for record in records), "records")
    require_known((record.id for record in records), {item.id for item in items}, "records")
    answers = {record.id: record.answers for record in records}
    hits: dict[tuple[str, Length], list[bool]] = defaultdict(list)
    missing, dropped = [], []
    for item in items:
        given = answers.get(item.id, ())
        if len(given) != len(item.expected):
            if mode == "strict" or not given:
                missing.append(item.id)
                continue
            dropped.append((item.id, f"{len(given)} answers to {len(item.expected)} questions"))
        pairs = zip(given, item.expected, strict=False)
        hits[item.type, item.length] += [_word(answer) == _word(expected) for answer, expected in pairs]
    exact = {kind: {length: _share(hits[kind, length]) for length in LENGTHS} for kind in TYPES}
    coverage = Coverage(expected=len(items), missing=tuple(missing), dropped=tuple(dropped))
    return _averaged(exact, mode, coverage)


def _averaged(exact: Mapping[str, ByLength], mode: Mode, coverage: Coverage) -> TIIFScores:
    """Figures of the accuracies of the types."""
    types = {kind: {length: _figure(value, mode) for length, value in values.items()} for kind, values in exact.items()}

    def over(kinds: Sequence[str]) -> dict[Length, float | None]:
        return {length: _mean([types[kind][length] for kind in kinds], mode) for length in LENGTHS}

    attributes = {name: over(kinds) for name, kinds in ATTRIBUTES.items()}
    groups = {name: over([kind for part in parts for kind in ATTRIBUTES[part]]) for name, parts in GROUPS.items()}
    overall = {length: _pairwise([values[length] for values in attributes.values()], mode) for length in LENGTHS}

    def figures(values: Mapping[str, ByLength]) -> dict[str, ByLength]:
        return {name: {length: _figure(v, mode) for length, v in lengths.items()} for name, lengths in values.items()}

    return TIIFScores(
        mode=mode,
        types=types,
        attributes=figures(attributes),
        groups=figures(groups),
        overall={length: _figure(value, mode) for length, value in overall.items()},
        mean_accuracy=_figure(_mean([exact[kind][length] for kind in TYPES for length in LENGTHS], mode), mode),
        coverage=coverage,
    )


def _mean(values: Sequence[float | None], mode: Mode) -> float | None:
    """Official: of those that are there. Strict: None if one is not."""
    present = [value for value in values if value is not None]
    return mean(present) if mode == "official" or len(present) == len(values) else None


def _pairwise(values: Sequence[float | None], mode: Mode) -> float | None:
    """`_mean`, added as numpy adds nine numbers: the official overall score is rounded from that sum."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if _mean(values, mode) is not None else None


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _figure(value: float | None, mode: Mode) -> float | None:
    """Official figures are rounded, half to even as numpy does."""
    return value if value is None or mode == "strict" else float(np.round(value, PLACES))


def _word(answer: str) -> str:
    return answer.strip().lower()
