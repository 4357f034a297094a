"""ImgEdit-Bench: parsing and scores; the official scorer's own inputs and outputs (`--golden`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from project.benchmarks import imgedit
from project.benchmarks.imgedit import ImgEditRecord
from project.benchmarks.scoring import UnparsedAnswer
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401

ANSWER = "Brief reasoning: ok\nPrompt Compliance: 5\nVisual Naturalness: 4\nPhysical & Detail Integrity: 4"


def test_official_scores(golden_imgedit_scores: Mapping[str, Any]) -> None:
    case = golden_imgedit_scores
    types = {name: str(meta["edit_type"]) for name, meta in case["meta"].items()}
    records = [ImgEditRecord(id=name, answer=text) for name, text in case["judge_outputs"].items()]
    scores = imgedit.score(types, records, "official")
    assert scores.edits == case["expected_avg"]
    by_type = {"overall": scores.overall, **scores.types}
    assert {name: value for name, value in by_type.items() if value is not None} == case["expected_by_type"]


def test_strict_rounds_nothing() -> None:
    types, records = {"a": "add"}, [ImgEditRecord(id="a", answer=ANSWER)]
    official, strict = (imgedit.score(types, records, mode) for mode in ("official", "strict"))
    assert official.overall == 4.33
    assert strict.overall == strict.types["add"] == pytest.approx(13 / 3, abs=1e-12)
    assert strict.table() == [("", "score"), ("overall", "4.33"), ("add", "4.33")]


def test_strict_wants_all_three_scores() -> None:
    types = {"a": "add", "b": "add", "c": "style"}
    records = [ImgEditRecord(id="a", answer="A: 5\nB: 2"), ImgEditRecord(id="b", answer=ANSWER)]
    records.append(ImgEditRecord(id="c", answer=None))
    official, strict = (imgedit.score(types, records, mode) for mode in ("official", "strict"))
    assert official.edits["a"] == 3.5 and official.coverage.missing == ("c",)
    assert strict.coverage.missing == ("a", "c") and strict.types["style"] is None


def test_records_must_belong_to_the_edits() -> None:
    record = ImgEditRecord(id="a", answer=ANSWER)
    with pytest.raises(ValueError, match="records are no items of this benchmark: a"):
        imgedit.score({"b": "add"}, [record], "strict")
    with pytest.raises(ValueError, match="records occur more than once: a"):
        imgedit.score({"a": "add"}, [record, record], "official")
    assert imgedit.score({"b": "add"}, [record], "official").overall == 4.33


@pytest.mark.parametrize("text", [ANSWER, "A: 5/5\n**B:** 4\nC: **4**."])
def test_strict_parsing(text: str) -> None:
    assert imgedit.parse_scores(text) == (5.0, 4.0, 4.0)


@pytest.mark.parametrize(
    ("text", "reason"), [("A: 6\nB: 1\nC: 1", "not from 1 to 5"), ("A: 5\nB: 2", "2 scores"), ("I like it", "0 scores")]
)
def test_strict_parsing_refuses(text: str, reason: str) -> None:
    with pytest.raises(UnparsedAnswer, match=reason):
        imgedit.parse_scores(text)
