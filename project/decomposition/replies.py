"""From a language model's reply to questions and verdicts. Whatever is wrong with it becomes a ValueError that says so,
in words that the model itself can be told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from project.data.questions import circular
from project.trajectory import Question


def read_json(text: str) -> dict[str, Any]:
    """The JSON object in a reply, whatever stands around it (words, a code fence)."""
    start = text.find("{")
    if start < 0:
        raise ValueError(f"there is no JSON object in {_short(text)}")
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"the JSON is broken ({error.msg}, character {error.pos}) in {_short(text[start:])}"
        ) from error
    assert isinstance(found, dict)
    return found


def read_semantic(reply: str, tags: Sequence[str]) -> tuple[Question, ...]:
    """The semantic questions, with `depends_on` turned from ids to positions."""
    entries = _entries(read_json(reply), "questions")
    positions = _positions(entries)
    questions = [_question(entry, "semantic", tags, positions, "depends_on") for entry in entries]
    if circle := circular([question.depends_on for question in questions]):
        raise ValueError(f"questions {_ids(entries, circle)} depend on each other in a circle")
    _distinct(questions)
    return tuple(questions)


def read_quality(
    reply: str, tags: Sequence[str], semantic: Sequence[Question], ids: Sequence[int]
) -> tuple[Question, ...]:
    """The quality questions; each depends on the semantic ones (of these ids, which count from 1) it is about."""
    entries = _entries(read_json(reply), "questions")
    positions = {str(number): number - 1 for number in ids}
    questions = [_question(entry, "quality", tags, positions, "about") for entry in entries]
    _distinct([*semantic, *questions])
    return tuple(questions)


def read_objections(reply: str, questions: Sequence[Question]) -> list[str]:
    """What the verdicts have against the questions (of ids from 1); empty if all are valid."""
    entries = _entries(read_json(reply), "verdicts")
    wanted = [str(number) for number in range(1, len(questions) + 1)]
    by_id = {str(entry.get("id")): entry for entry in entries}
    if sorted(by_id) != sorted(wanted) or len(entries) != len(wanted):
        raise ValueError(f"verdicts on the ids {sorted(by_id)}: give one on each of {', '.join(wanted)}")
    objections = []
    for number, question in zip(wanted, questions, strict=True):
        verdict = by_id[number]
        faults = [
            fault
            for name, good, fault in (
                ("necessary", True, "not strictly necessary"),
                ("invented", False, "demands what the prompt does not"),
                ("unambiguous", True, "ambiguous"),
            )
            if _flag(verdict, name) is not good
        ]
        if faults:
            reason = str(verdict.get("reason") or "").strip()
            objections.append(f"{question.text!r}: {', '.join(faults)}" + (f" ({reason})" if reason else ""))
    return objections


def _entries(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    entries = found.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"the JSON object holds no list of objects named {name!r}")
    if not entries:
        raise ValueError(f"the list {name!r} is empty")
    return entries


def _positions(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    positions = {str(entry.get("id", place + 1)): place for place, entry in enumerate(entries)}
    if len(positions) < len(entries):
        raise ValueError("two questions have the same id")
    return positions


def _question(
    entry: Mapping[str, Any],
    kind: Literal["semantic", "quality"],
    tags: Sequence[str],
    positions: Mapping[str, int],
    links: str,
) -> Question:
    text = entry.get("question")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{_short(json.dumps(entry, ensure_ascii=False))} has no 'question'")
    text = " ".join(text.split())
    known = {tag.casefold(): tag for tag in tags}
    tag = str(entry.get("tag") or "").strip().casefold()
    if tag not in known:
        fault = f"has the unknown tag {entry['tag']!r}" if tag else "has no tag"
        raise ValueError(f"{text!r} {fault}: choose of {', '.join(tags)}")
    linked = entry.get(links) or []
    own = positions.get(str(entry.get("id"))) if kind == "semantic" else None
    if not isinstance(linked, list) or any(str(one) not in positions or positions[str(one)] == own for one in linked):
        raise ValueError(f"{text!r}: {links!r} is {linked!r}: give a list of ids of other questions")
    return Question(
        text=text,
        kind=kind,
        tag=known[tag],
        depends_on=tuple(sorted({positions[str(one)] for one in linked})),
    )


def _distinct(questions: Sequence[Question]) -> None:
    seen = set()
    for question in questions:
        if question.text.casefold() in seen:
            raise ValueError(f"{question.text!r} is asked twice")
        seen.add(question.text.casefold())


def _ids(entries: Sequence[Mapping[str, Any]], places: Sequence[int]) -> list[Any]:
    return [entries[place].get("id", place + 1) for place in places]


def _flag(verdict: Mapping[str, Any], name: str) -> bool:
    if not isinstance(verdict.get(name), bool):
        raise ValueError(f"the verdict on {verdict.get('id')!r} lacks {name!r}, true or false")
    return bool(verdict[name])


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else f"{text[:60]} ... {text[-15:]}")
