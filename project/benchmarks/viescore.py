"""VIEScore of an edit: a judge scores what was done (SC) and how the result looks (PQ), 0 to 10 each.

SC sees the source and the edited picture and gives [success, overediting]; PQ sees the edited picture alone and gives
[naturalness, artefacts]. `SC = min`, `PQ = min`, `O = sqrt(SC PQ)`.

The official code accepts any number of scores, of any size, also a bare list or number; asks for both parts again if
one of them cannot be read; and in the end guesses: it takes random scores for an answer that it still cannot read.
Nothing is guessed here in either mode. `strict` wants exactly two scores from 0 to 10, and asks again only for the part
that could not be read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from project.benchmarks.scoring import Mode, UnparsedAnswer

Part = Literal["semantics", "quality"]
PARTS: tuple[Part, ...] = ("semantics", "quality")
TEMPLATE_VERSION = "1"
ATTEMPTS = 3
HIGHEST = 10
FENCE = "||V^=^V||"
"""What the official template asks judges to put around their JSON."""
REFUSAL = "rate_limit_exceeded"
"""What the official client writes in place of an answer that it did not get."""
_LIST = re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\]")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_FORM = 'Write one JSON object and nothing else: {"score": [A, B], "reasoning": "one short sentence"}'


@dataclass(frozen=True, kw_only=True)
class VIEAnswer:
    """What a judge's answer to one part says: its scores, and why."""

    scores: tuple[float, ...]
    reasoning: str


@dataclass(frozen=True, kw_only=True)
class VIEScore:
    """Both parts of an edit, 0 to 10: semantic consistency (SC) and perceptual quality (PQ)."""

    semantics: float
    quality: float

    @property
    def overall(self) -> float:
        """`O = sqrt(SC PQ)`."""
        return math.sqrt(self.semantics * self.quality)


def judge_text(part: Part, instruction: str) -> str:
    """What a judge is asked; for "semantics" it gets the source and the edited picture, in this order, else the
    edited picture alone. The second part does not name the instruction: the picture is judged by itself."""
    if part == "semantics":
        return (
            "The second picture is an edit of the first one. The editor got this instruction: "
            f"{instruction.strip()}\n\n"
            "Give two whole numbers from 0 to 10.\n"
            "A, success: 0 if the second picture does not follow the instruction at all, 10 if it follows it fully.\n"
            "B, overediting: 0 if the second picture has nothing in common with the first one, 10 if it changes only "
            "what the instruction asks for.\n"
            f"Judge only what can be seen. {_FORM}"
        )
    return (
        "The picture was made by a model. Judge how it looks, not what it shows. Give two whole numbers from 0 to 10.\n"
        "A, naturalness: 0 if light, shadows, distances and the scene as a whole look wrong, 10 if they look natural.\n"
        "B, artefacts: 0 if distortions, blurred faces or hands, seams or watermarks are all over it, 10 if there are "
        f"none.\n{_FORM}"
    )


def parse_answer(text: str, mode: Mode = "strict") -> VIEAnswer:
    """The scores in a judge's text: a JSON object with `score` and `reasoning`, with any prose around it.

    Official: also a list of two numbers that the text begins with, or a single number; `score` may be one number; line
    ends within the reasoning are lost. Strict: two numbers from 0 to 10, in an object, or in a list and nothing else.

    Raises UnparsedAnswer for everything else.
    """
    if text.strip() == REFUSAL:
        raise UnparsedAnswer(f"the judge did not answer ({REFUSAL})", text)
    content = text.replace("\n", "").replace("\r", "") if mode == "official" else text
    if content.count(FENCE) >= 2:
        content = content.split(FENCE)[1]
    content = content.strip()
    start, end = content.find("{"), content.rfind("}")
    if 0 <= start < end:
        answer = _object(content[start : end + 1], text)
    elif (found := _LIST.match(content)) and (mode == "official" or found.end() == len(content)):
        answer = VIEAnswer(scores=(float(found[1]), float(found[2])), reasoning="")
    elif mode == "official" and _NUMBER.fullmatch(content):
        answer = VIEAnswer(scores=(float(content),), reasoning="")
    else:
        raise UnparsedAnswer("there is no JSON object with scores", text)
    if mode == "strict":
        if len(answer.scores) != 2:
            raise UnparsedAnswer(f"there are {len(answer.scores)} scores, not 2", text)
        if any(not 0 <= score <= HIGHEST for score in answer.scores):
            raise UnparsedAnswer(f"a score is not from 0 to {HIGHEST}", text)
    return answer


def _object(content: str, text: str) -> VIEAnswer:
    """The scores of a JSON object; line ends may stand in its texts."""
    try:
        found: Any = json.loads(content, strict=False)
    except (ValueError, RecursionError) as error:
        raise UnparsedAnswer(f"its JSON cannot be read ({error})", text) from None
    scores = found.get("score")
    scores = scores if isinstance(scores, list) else [scores]
    if not scores or not all(isinstance(s, int | float) and not isinstance(s, bool) for s in scores):
        raise UnparsedAnswer("'score' holds no numbers", text)
    if not all(math.isfinite(score) for score in scores):
        raise UnparsedAnswer("'score' holds a number that is not finite", text)
    return VIEAnswer(scores=tuple(map(float, scores)), reasoning=str(found.get("reasoning", "")))


def combine(semantics: Sequence[float], quality: Sequence[float]) -> VIEScore:
    """The lowest score of each part."""
    return VIEScore(semantics=min(semantics), quality=min(quality))


def evaluate(ask: Callable[[Part], str], mode: Mode = "strict", attempts: int = ATTEMPTS) -> VIEScore:
    """Asks a judge for both parts, and again for answers that cannot be read.

    Args:
        ask: Gives the judge's text for a part. Called for "semantics" first.
        mode: Which parts are asked again, see the module, and how answers are parsed.
        attempts: How often a part is asked at most.

    Raises UnparsedAnswer, that of the last attempt, when none of them can be read, and ValueError without attempts.
    """
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}: a judge is asked at least once")
    answers: dict[Part, VIEAnswer] = {}
    for attempt in range(attempts):
        if mode == "official":
            answers = {}
        failure: UnparsedAnswer | None = None
        texts = {part: ask(part) for part in PARTS if part not in answers}
        for part, text in texts.items():
            try:
                answers[part] = parse_answer(text, mode)
            except UnparsedAnswer as error:
                failure = error
        if failure is None:
            break
        if attempt == attempts - 1:
            raise failure
    return combine(answers["semantics"].scores, answers["quality"].scores)
