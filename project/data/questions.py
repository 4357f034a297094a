"""A prompt's questions: from the rows of prompt files and back, and what can be told of them before a judge is asked.

An entry is `{"question", "is_valid", "tag", "depends_on"}`; only `question` must be there. Entries with `is_valid:
false` are dropped; `question_type` is written but not read, as the list says it already. `depends_on` holds positions,
from 0, in the list of all questions of the row (semantic first, then quality).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from project.core.json_files import json_value
from project.trajectory import Question

TRUTHS = {"true": True, "false": False}
LIST = "questions stand in a list: give [{'question': ...}, ...]"


def read_questions(place: str, semantic: Any, quality: Any) -> tuple[Question, ...]:
    """The valid questions, semantic first, their `depends_on` moved to positions among the valid ones.

    A list may also come as the JSON text of one, or as an object of equally long lists (as Parquet and datasets hold
    it). Raises ValueError, beginning with the place, for anything else.
    """
    kinds: list[Literal["semantic", "quality"]] = []
    entries: list[dict[str, Any]] = []
    for kind, value in (("semantic", semantic), ("quality", quality)):
        added = _entries(place, value)
        kinds += [kind] * len(added)  # type: ignore[list-item]
        entries += added
    valid = [position for position, entry in enumerate(entries) if _is_valid(place, entry)]
    moved = {old: new for new, old in enumerate(valid)}
    return tuple(
        Question(
            text=entries[old]["question"],
            kind=kinds[old],
            tag=_tag(place, entries[old]),
            depends_on=tuple(moved[d] for d in _depends_on(place, old, entries[old], len(entries)) if d in moved),
        )
        for old in valid
    )


def question_row(asked: Question) -> dict[str, Any]:
    """The entry that `read_questions` reads as this question."""
    row = {"question_type": asked.kind, "question": asked.text, "is_valid": True, "tag": asked.tag}
    return row | ({"depends_on": list(asked.depends_on)} if asked.depends_on else {})


def circular(depends_on: Sequence[Sequence[int]]) -> list[int]:
    """Positions of the questions that depend on each other in a circle, or on such; empty if there is none."""
    left = set(range(len(depends_on)))
    while free := {place for place in left if left.isdisjoint(depends_on[place])}:
        left -= free
    return sorted(left)


def _entries(place: str, value: Any) -> list[dict[str, Any]]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        try:
            value = json_value(value)
        except json.JSONDecodeError:
            raise ValueError(f"{place}: {LIST}") from None
        except ValueError as error:
            raise ValueError(f"{place}: a list of questions {error}: {LIST}") from None
    if isinstance(value, dict):
        value = _rows_of(place, value)
    if not isinstance(value, list):
        raise ValueError(f"{place}: {LIST}")
    for entry in value:
        if not isinstance(entry, dict) or not isinstance(entry.get("question"), str) or not entry["question"].strip():
            raise ValueError(f"{place}: {entry!r} is no question: give {{'question': TEXT, 'tag': ...}}")
    return value


def _rows_of(place: str, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """{"question": [a, b], "tag": [c, d]} -> [{"question": a, "tag": c}, {"question": b, "tag": d}]."""
    if not all(isinstance(column, list) for column in columns.values()):
        raise ValueError(f"{place}: {LIST}")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} of {name!r}" for name, length in lengths.items())
        raise ValueError(f"{place}: the lists of its questions are of different lengths ({told}): {LIST}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _is_valid(place: str, entry: dict[str, Any]) -> bool:
    """Whether the question counts; true where nothing is said, as in datasets, which fill up with null."""
    value = entry.get("is_valid")
    if value is None:
        return True
    if isinstance(value, str):
        value = TRUTHS.get(value.strip().lower(), value)
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise ValueError(f"{place}: 'is_valid' is {value!r}: give true or false")


def _tag(place: str, entry: dict[str, Any]) -> str:
    tag = entry.get("tag")
    if tag is not None and (isinstance(tag, bool) or not isinstance(tag, str | int)):
        raise ValueError(f"{place}: 'tag' is {tag!r}: give a text")
    return "" if tag is None else str(tag)


def _depends_on(place: str, position: int, entry: dict[str, Any], number: int) -> list[int]:
    depends_on = entry.get("depends_on")
    if depends_on is None:
        return []
    if not isinstance(depends_on, list) or any(isinstance(d, bool) or not isinstance(d, int) for d in depends_on):
        raise ValueError(f"{place}: 'depends_on' is {depends_on!r}: give a list of positions from 0")
    if wrong := [d for d in depends_on if not 0 <= d < number or d == position]:
        raise ValueError(f"{place}: question {position} depends on {wrong[0]}: give another's, 0 to {number - 1}")
    return depends_on
