"""The judge of the embedded world's reflections: `<think> the circle is red not blue </think>`, see shapes/mistakes.py.

Rule-based. A reflection is short, so its three steps stand in one sentence: it names something that the prompt asks
for (clarify), says what is seen of it (compare), and what should be there (instruct).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from project.judges.base import TextJudge, check_texts
from project.shapes.grammar import COUNT_WORDS, THINK_END, THINK_START, parse, plural
from project.shapes.scenes import COLOURS, RELATIONS, SHAPES, SIZES, Scene

CLARIFY = "does it name what is asked for ?"
COMPARE = "does it say what is seen ?"
INSTRUCT = "does it say what should be there ?"

_NUMBERS = ("one", *COUNT_WORDS[1:])


class ReflectionJudge(TextJudge):
    """Answers `CLARIFY`, `COMPARE` and `INSTRUCT` with 0 or 1; other questions, and prompts that are not of the
    embedded world, are unanswered. It reads the text alone: whether the reflection is true of the picture it cannot
    know."""

    @property
    def name(self) -> str:
        return "shapes-reflection"

    def preflight(self) -> None:
        """Nothing to check: the rules are part of the package."""

    def answer_texts(
        self, texts: Sequence[str], questions: Sequence[str], prompts: Sequence[str]
    ) -> list[list[float | None]]:
        check_texts(texts, prompts)
        answers: list[list[float | None]] = []
        for text, prompt in zip(texts, prompts, strict=True):
            scene = parse(prompt, indirect=True)
            known = {} if scene is None else _judged(text, scene)
            answers.append([known.get(question) for question in questions])
        return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What a reflection says."""

    shapes: tuple[str, ...]
    """Shapes that it says are asked for."""
    seen: str | None
    """Colour, size or number word that it says is seen."""
    demanded: str | None
    """Colour, size, number word or relation that it says should be; None where that is the shape itself."""


def _judged(text: str, scene: Scene) -> Mapping[str, float]:
    inner = text.strip().removeprefix(THINK_START).removesuffix(THINK_END).strip()
    if inner == "nothing is wrong":
        return dict.fromkeys((CLARIFY, COMPARE, INSTRUCT), 1.0)
    remark = _remark(inner)
    if remark is None:
        return dict.fromkeys((CLARIFY, COMPARE, INSTRUCT), 0.0)
    things = [thing for thing in scene.objects if thing.shape in remark.shapes]
    named = {thing.shape for thing in things} == set(remark.shapes)
    asked_for = {scene.relation, _NUMBERS[scene.total - 1]}
    asked_for.update(value for thing in things for value in (thing.colour, thing.size))
    right = named and (remark.demanded is None or remark.demanded in asked_for)
    compared = remark.demanded is None or remark.seen != remark.demanded
    return {CLARIFY: float(named), COMPARE: float(compared), INSTRUCT: float(right)}


def _remark(inner: str) -> Remark | None:
    """The remark of a text of the grammar in shapes/mistakes.py; None for anything else."""
    for pattern in _PATTERNS:
        if found := pattern.fullmatch(inner):
            parts = found.groupdict()
            shapes = tuple(_SINGULAR[parts[key]] for key in ("subject", "object") if key in parts)
            return Remark(shapes=shapes, seen=parts.get("seen"), demanded=parts.get("demanded"))
    return None


def _any(words: Iterable[str]) -> str:
    return "|".join(words)


_SINGULAR = {name: shape for shape in SHAPES for name in (shape, plural(shape))}
_NOUN = _any(_SINGULAR)
_PATTERNS = [
    re.compile(pattern)
    for pattern in (
        rf"the (?P<subject>{_NOUN}) (is|are) missing",
        rf"the (?P<subject>{_NOUN}) (is|are) (?P<seen>{_any(COLOURS)}) not (?P<demanded>{_any(COLOURS)})",
        rf"the (?P<subject>{_NOUN}) (is|are) (?P<seen>{_any(SIZES)}) not (?P<demanded>{_any(SIZES)})",
        rf"there (is|are) (?P<seen>{_any(_NUMBERS)}) not (?P<demanded>{_any(_NUMBERS)})",
        rf"there (is|are) (a )?({_NOUN}) not (a )?(?P<subject>{_NOUN})",
        rf"the (?P<subject>{_NOUN}) is not (?P<demanded>{_any(RELATIONS)}) the (?P<object>{_NOUN})",
    )
]
