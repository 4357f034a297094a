"""Scores of ImgEdit-Bench: edits of nine types, each scored by a judge in three respects, 1 to 5.

Protocol: a judge (papers take gpt-4o-2024-11-20) writes a line "NAME: SCORE" for each respect, after a line of
reasoning.

Metric: mean of the three scores of an edit; mean of the edits of a type; mean of all edits.

The official scorer
  - takes the mean of whatever scores it finds in lines, two of them for example;
  - skips an edit without any;
  - counts an edit without a type in the overall score, and in no type;
  - rounds the score of an edit to 2 places before it averages, and every mean again.
`strict` wants three scores from 1 to 5, counts the edit as missing otherwise, refuses records of unknown edits, and
rounds nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from project.benchmarks.scoring import Coverage, Mode, UnparsedAnswer, mean, require_known, require_unique

RESPECTS = 3
PLACES = 2
"""Decimal places of official figures."""
_LINE = re.compile(r"[:\uff1a][ \t*_`]*(\d+(?:\.\d+)?)[ \t*_`]*(/[ \t]*5)?[ \t*_`.]*$", re.MULTILINE)
_OFFICIAL = re.compile(r":[ \t]*(\d+)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ImgEditRecord:
    """A judge's answer to the edit `id`; None if there is none."""

    id: str
    answer: str | None


@dataclass(frozen=True, kw_only=True)
class ImgEditScores:
    """Figures of ImgEdit-Bench, 1 to 5.

    Args:
        mode: How they were computed.
        edits: Edit -> mean of its scores.
        types: Type -> mean of its edits, None without scores.
        overall: Mean of all edits; None without scores.
        coverage: Which edits are missing.
    """

    mode: Mode
    edits: Mapping[str, float]
    types: Mapping[str, float | None]
    overall: float | None
    coverage: Coverage

    def figures(self) -> dict[str, Any]:
        """Nested figures for logging; absent ones are None."""
        return {"overall": self.overall, "type": dict(self.types)}

    def table(self) -> list[tuple[str, ...]]:
        """Rows of type and score, the overall score first."""
        values = {"overall": self.overall, **self.types}
        return [("", "score"), *((name, "-" if v is None else f"{v:.2f}") for name, v in values.items())]


def parse_scores(text: str, mode: Mode = "strict") -> tuple[float, ...]:
    """The scores at the ends of a judge's lines.

    Official: whole numbers after a colon, as many as there are. Strict: three from 1 to 5 ("4/5" is 4).

    Raises UnparsedAnswer otherwise.
    """
    if mode == "official":
        scores = tuple(float(number) for number in _OFFICIAL.findall(text))
        if not scores:
            raise UnparsedAnswer("there are no scores", text)
        return scores
    scores = tuple(float(number) for number, _ in _LINE.findall(text))
    if len(scores) != RESPECTS:
        raise UnparsedAnswer(f"there are {len(scores)} scores, not {RESPECTS}", text)
    if not all(1 <= score <= 5 for score in scores):
        raise UnparsedAnswer("a score is not from 1 to 5", text)
    return scores


def score(types: Mapping[str, str], records: Sequence[ImgEditRecord], mode: Mode) -> ImgEditScores:
    """Figures of what a judge said of the edits.

    Args:
        types: Edit -> its type; edits without a record are missing.
        records: Answers, in any order.
        mode: See the module.

    Raises ValueError for several records of one edit, and in strict mode for records of unknown edits.
    """
    require_unique((record.id for record in records), "records")
    if mode == "strict":
        require_known((record.id for record in records), types, "records")
    edits: dict[str, float] = {}
    by_type: dict[str, list[float]] = defaultdict(list)
    for record in records:
        try:
            scores = parse_scores(record.answer or "", mode)
        except UnparsedAnswer:
            continue
        edits[record.id] = _figure(sum(scores) / len(scores), mode)
        if record.id in types:
            by_type[types[record.id]].append(edits[record.id])
    return ImgEditScores(
        mode=mode,
        edits=edits,
        types={kind: _mean(by_type[kind], mode) for kind in sorted(set(types.values()))},
        overall=_mean(list(edits.values()), mode),
        coverage=Coverage(expected=len(types), missing=tuple(name for name in types if name not in edits)),
    )


def _mean(values: Sequence[float], mode: Mode) -> float | None:
    value = mean(values)
    return None if value is None else _figure(value, mode)


def _figure(value: float, mode: Mode) -> float:
    return value if mode == "strict" else round(value, PLACES)
