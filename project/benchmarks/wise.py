"""WISE: prompts that take knowledge of the world to draw ("the food of the Mid-Autumn Festival"), in two editions.

Data: https://github.com/PKU-YuanGroup/WISE. The repository states no licence, so nothing of it comes with this project.
  - legacy: `{cultural_common_sense,spatio-temporal_reasoning,natural_science}.json`, and the same names with `_rewrite`
    for prompts that say what is to be seen;
  - verified (2026): the same names with `_verified`, or all in `merge.json`.
Both have 1000 prompts with an explanation each. The number of a prompt says its category (`RANGES`).

Protocol: one picture for each prompt. legacy: a judge (papers take a version of GPT-4o) gives consistency, realism and
aesthetic quality, 0 to 2 each. verified: a judge (Qwen3.5-35B-A3B in the published table) says whether the picture
shows what the explanation says.

Metric: legacy `WiScore = (0.7 consistency + 0.2 realism + 0.1 aesthetic quality) / 2`, verified 0 or 1; a category is
the mean of its prompts, the overall score a sum of the categories with `WEIGHTS`. Some papers give the unweighted mean
of the six categories as overall score, so it stands beside it here as `unweighted`.

The official scorer
  - gives no figures at all if the number of a prompt is not in the score files (`aborted`);
  - skips scores that are no numbers, and verified scores that are neither 0 nor 1: their category has fewer prompts;
  - counts a prompt twice that stands in the files twice, and ignores numbers beyond the category;
  - takes any number for a score, also the 9.9 that its judging script writes where the judge failed;
  - reads the first digit after a name as the score, so that "10" is 1, and cannot read "**Consistency:** 2".
`strict` refuses repeated and unknown numbers, and takes 0, 1 or 2 (verified: 0 or 1) for a score and nothing else: the
prompt is missing otherwise. The overall score is given when every category has a score.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from project.benchmarks.scoring import (
    Coverage,
    Mode,
    UnparsedAnswer,
    mean,
    percent,
    require_known,
    require_unique,
)
from project.core.json_files import read_list

Edition = Literal["legacy", "verified"]
HOME = "https://github.com/PKU-YuanGroup/WISE"
TEMPLATE_VERSION = "1"
CATEGORIES = ("culture", "time", "space", "biology", "physics", "chemistry")
RANGES: Mapping[Edition, Mapping[str, range]] = {
    "legacy": {
        "culture": range(1, 401),
        "time": range(401, 568),
        "space": range(568, 701),
        "biology": range(701, 801),
        "physics": range(801, 901),
        "chemistry": range(901, 1001),
    },
    "verified": {
        "culture": range(1, 401),
        "time": range(401, 521),
        "space": range(521, 641),
        "biology": range(641, 761),
        "physics": range(761, 881),
        "chemistry": range(881, 1001),
    },
}
"""Edition -> category -> numbers of its prompts."""
WEIGHTS: Mapping[Edition, Mapping[str, float]] = {
    "legacy": {"culture": 0.4, "time": 0.167, "space": 0.133, "biology": 0.1, "physics": 0.1, "chemistry": 0.1},
    "verified": {"culture": 0.4, "time": 0.12, "space": 0.12, "biology": 0.12, "physics": 0.12, "chemistry": 0.12},
}
"""Edition -> category -> weight in the overall score."""
FILES: Mapping[str, tuple[str, ...]] = {
    "cultural_common_sense": ("culture",),
    "spatio-temporal_reasoning": ("time", "space"),
    "natural_science": ("biology", "physics", "chemistry"),
}
"""Name of a file, without what follows it -> its categories."""
ASPECTS = ("consistency", "realism", "aesthetic_quality")
_NAMES = "Consistency|Realism|Aesthetic Quality"
_OFFICIAL = re.compile(rf"\*{{0,2}}({_NAMES})\*{{0,2}}\s*:?\s*(\d)", re.IGNORECASE)
_BARE = re.compile(r"\s*(\d)\s*\n\s*(\d)\s*\n\s*(\d)\s*")
_STRICT = re.compile(
    rf"\b({_NAMES})\b[\s*_`]*[:\uff1a=-]?[\s*_`]*"  # \uff1a is the colon of Chinese texts.
    r"(\d+(?:\.\d+)?)(?:\s*/\s*2)?(?!\d|\.\d|\s*/)",  # A score out of 2, and of no other scale.
    re.IGNORECASE,
)
_VERDICT = re.compile(r"[\s*_`]*(?:score[\s*_`]*[:=]?[\s*_`]*)?([01])[\s*_`.]*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class WISEItem:
    """A prompt.

    Args:
        id: Its number, 1 to 1000.
        prompt: What the model gets.
        explanation: What the picture must show, for the judge.
        category: One of `CATEGORIES`.
        subcategory: As the file says, e.g. "Festival".
        hint: What to draw in a few words, where the file has it; else empty.
    """

    id: int
    prompt: str
    explanation: str
    category: str
    subcategory: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class WISERecord:
    """A judge's scores of the prompt `id` of the legacy edition; values are what the file of scores holds."""

    id: int
    consistency: Any
    realism: Any
    aesthetic_quality: Any


@dataclass(frozen=True, kw_only=True)
class WISEVerdict:
    """A judge's verdict on the prompt `id` of the verified edition; right is 1, and wrong is 0."""

    id: int
    score: Any


@dataclass(frozen=True, kw_only=True)
class WISEScores:
    """Figures of WISE, 0 to 1.

    Args:
        mode: How they were computed.
        categories: Category -> mean of its prompts, None without scores; the categories that were asked for.
        counts: Category -> number of scores.
        overall: Sum of the categories with `WEIGHTS`; None unless all six were asked for and scored.
        unweighted: Mean of the six categories; None as `overall` is.
        aborted: Whether the official scorer ends without figures, since prompts have no scores. Its overall score is
            None then, while the categories say what it would have computed.
        coverage: Which prompts are missing, and what was dropped.
    """

    mode: Mode
    categories: Mapping[str, float | None]
    counts: Mapping[str, int]
    overall: float | None
    unweighted: float | None
    aborted: bool
    coverage: Coverage

    def figures(self) -> dict[str, Any]:
        """Nested figures for logging; absent ones are None."""
        return {"overall": self.overall, "unweighted": self.unweighted, "category": dict(self.categories)}

    def table(self) -> list[tuple[str, ...]]:
        """Rows of category, score [%] and number of scores, the overall scores first."""
        rows: list[tuple[str, ...]] = [("", "score", "prompts"), ("overall", percent(self.overall), "")]
        rows.append(("unweighted", percent(self.unweighted), ""))
        return rows + [(name, percent(v), str(self.counts[name])) for name, v in self.categories.items()]


def read_items(path: Path, edition: Edition, rewritten: bool = False) -> tuple[WISEItem, ...]:
    """The prompts of a folder with the three files of an edition, or of one file that holds them, by number.

    Args:
        path: Folder, or file (`merge.json`, or one of the three).
        edition: Which numbers belong to which category.
        rewritten: Take the files `..._rewrite.json` of a folder of the legacy edition.

    Raises FileNotFoundError for a missing file, and ValueError for a row without its columns, a number that is none of
    the edition, or that occurs twice.
    """
    suffix = {"verified": "_verified", "legacy": "_rewrite" if rewritten else ""}[edition]
    files = [path / f"{name}{suffix}.json" for name in FILES] if path.is_dir() else [path]
    items: dict[int, WISEItem] = {}
    for file in files:
        for place, row in read_list(file, f"the {edition} edition of WISE, {HOME},"):
            item = _item(place, row, edition)
            if item.id in items:
                raise ValueError(f"{place}: 'prompt_id' {item.id} occurs twice: keep one of the rows")
            items[item.id] = item
    return tuple(items[number] for number in sorted(items))


def _item(place: str, row: Mapping[str, Any], edition: Edition) -> WISEItem:
    for column in ("Prompt", "Explanation", "Subcategory"):
        if not isinstance(row.get(column), str) or not row[column].strip():
            raise ValueError(f"{place}: {column!r} is {row.get(column)!r}, not a text: take the file from {HOME}")
    category = category_of(row.get("prompt_id"), edition)
    if category is None:
        raise ValueError(f"{place}: 'prompt_id' is {row.get('prompt_id')!r}, not a number of 1 to 1000")
    return WISEItem(
        id=row["prompt_id"],
        prompt=row["Prompt"].strip(),
        explanation=row["Explanation"].strip(),
        category=category,
        subcategory=row["Subcategory"].strip(),
        hint=str(row.get("Hint") or "").strip(),
    )


def category_of(number: Any, edition: Edition) -> str | None:
    """The category of a prompt's number; None if the edition has no such number."""
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    return next((name for name, numbers in RANGES[edition].items() if number in numbers), None)


def judge_text(item: WISEItem) -> str:
    """What a judge of the legacy edition is asked beside the picture."""
    return (
        f"A model was asked to draw this: {item.prompt}\nWhat the picture must show: {item.explanation}\n\n"
        "Score the picture in three respects, each with a whole number from 0 to 2.\n"
        "Consistency: does it show what the explanation asks for? 0: no, or its main point is missing; 1: in part; "
        "2: completely and exactly.\n"
        "Realism: do objects, materials, light and proportions look as they would in a photograph or in the style that "
        "was asked for? 0: no; 1: with visible faults; 2: yes.\n"
        "Aesthetic Quality: how good are composition, colour and clarity? 0: poor; 1: acceptable; 2: very good.\n"
        "Be strict: give 2 only where there is nothing to object to.\n\n"
        "Write three lines and nothing else:\nConsistency: N\nRealism: N\nAesthetic Quality: N"
    )


def verdict_text(item: WISEItem) -> str:
    """What a judge of the verified edition is asked beside the picture."""
    return (
        f"A model was asked to draw this: {item.prompt}\nWhat the picture must show: {item.explanation}\n\n"
        "Look closely at the picture. Does it clearly show what the explanation says? Write 1 if it does, and 0 if it "
        "does not, does so only in part, or cannot be told. Write the digit and nothing else."
    )


def parse_scores(text: str, mode: Mode = "strict") -> dict[str, float]:
    """Aspect -> score in a judge's text.

    Official: the first digit after each name, the last one where a name occurs again, and three lines of one digit each
    without names; aspects that are not found are absent, and a result is only used where all three are there.
    Strict: all three by name, each 0, 1 or 2 ("2/2" is 2), the same wherever a name occurs again.

    Raises UnparsedAnswer in strict mode for anything else.
    """
    if mode == "official":
        if bare := _BARE.fullmatch(text):
            return dict(zip(ASPECTS, map(float, bare.groups()), strict=True))
        return {_aspect(name): float(digit) for name, digit in _OFFICIAL.findall(text)}
    scores: dict[str, float] = {}
    for name, number in _STRICT.findall(text):
        value = float(number)
        if value not in (0.0, 1.0, 2.0):
            raise UnparsedAnswer(f"{name} is {number}, none of 0, 1 and 2", text)
        if scores.setdefault(_aspect(name), value) != value:
            raise UnparsedAnswer(f"{name} is scored twice", text)
    if absent := [name for name in ASPECTS if name not in scores]:
        raise UnparsedAnswer(f"there is no score of {', '.join(absent).replace('_', ' ')}", text)
    return {name: scores[name] for name in ASPECTS}


def parse_verdict(text: str) -> int:
    """0 or 1, as a judge's text says. Raises UnparsedAnswer unless it is this digit ("Score: 1" is 1)."""
    found = _VERDICT.fullmatch(text)
    if found is None:
        raise UnparsedAnswer("it is neither 0 nor 1", text)
    return int(found[1])


def _aspect(name: str) -> str:
    return name.lower().replace(" ", "_")


def wiscore(consistency: float, realism: float, aesthetic_quality: float) -> float:
    """0 to 1, of scores of 0 to 2."""
    return (0.7 * consistency + 0.2 * realism + 0.1 * aesthetic_quality) / 2


def score_legacy(
    records: Sequence[WISERecord],
    mode: Mode,
    categories: Sequence[str] = CATEGORIES,
    expected: Collection[int] | None = None,
) -> WISEScores:
    """Figures of the legacy edition.

    Args:
        records: Scores, in any order.
        mode: See the module.
        categories: Those to score, e.g. those of one of the `FILES`.
        expected: Numbers of the prompts that were to be drawn; by default all of these categories.

    Raises ValueError in strict mode for numbers that occur twice or were not to be drawn.
    """
    values: list[tuple[int, float | None]] = []
    for record in records:
        scores = [record.consistency, record.realism, record.aesthetic_quality]
        usable = all(_is_number(s) and (mode == "official" or s in (0, 1, 2)) for s in scores)
        values.append((record.id, wiscore(*scores) if usable else None))
    return _scored("legacy", values, mode, categories, expected)


def score_verified(
    verdicts: Sequence[WISEVerdict],
    mode: Mode,
    categories: Sequence[str] = CATEGORIES,
    expected: Collection[int] | None = None,
) -> WISEScores:
    """Figures of the verified edition; see `score_legacy`."""
    values = [(v.id, float(v.score) if _is_number(v.score) and v.score in (0, 1) else None) for v in verdicts]
    return _scored("verified", values, mode, categories, expected)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scored(
    edition: Edition,
    values: Sequence[tuple[int, float | None]],
    mode: Mode,
    categories: Sequence[str],
    expected: Collection[int] | None,
) -> WISEScores:
    """Figures of (number, score) pairs; a score is None if it cannot be used."""
    ranges = {name: RANGES[edition][name] for name in categories}
    wanted = [number for numbers in ranges.values() for number in numbers if expected is None or number in expected]
    if mode == "strict":
        require_unique((str(number) for number, _ in values), "prompts")
        require_known((str(number) for number, _ in values), {str(number) for number in wanted}, "prompts")
    by_category: dict[str, list[float]] = defaultdict(list)
    scored: set[int] = set()
    dropped: list[tuple[str, str]] = []
    for number, value in values:
        category = next((name for name, numbers in ranges.items() if number in numbers), None)
        if category is None:
            dropped.append((str(number), "no prompt of these categories"))
        elif value is None:
            dropped.append((str(number), "a score that cannot be used"))
        else:
            by_category[category].append(value)
            scored.add(number)
    means = {name: mean(by_category[name]) for name in categories}
    there = {number for number, _ in values}
    aborted = mode == "official" and any(number not in there for number in wanted)
    whole = {name: value for name, value in means.items() if value is not None}
    known = not aborted and len(whole) == len(CATEGORIES)
    return WISEScores(
        mode=mode,
        categories=means,
        counts={name: len(by_category[name]) for name in categories},
        overall=sum(WEIGHTS[edition][name] * value for name, value in whole.items()) if known else None,
        unweighted=mean(list(whole.values())) if known else None,
        aborted=aborted,
        coverage=Coverage(
            expected=len(wanted),
            missing=tuple(str(number) for number in wanted if number not in scored),
            dropped=tuple(dropped) if mode == "official" else (),
        ),
    )
