"""VIEScore: what is read, what is asked again; the official code's own inputs and outputs (`--golden`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from project.benchmarks import viescore
from project.benchmarks.scoring import UnparsedAnswer
from project.benchmarks.viescore import Part
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401

GOOD = '{"score": [7, 8], "reasoning": "ok"}'
ONE = '{"score": [7], "reasoning": "ok"}'


class Scripted:
    """A judge that gives its answers one after the other."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = answers, list[Part]()

    def __call__(self, part: Part) -> str:
        self.asked.append(part)
        return self.answers[len(self.asked) - 1]


def test_official_parsing(golden_viescore_parse: Mapping[str, Any]) -> None:
    text, expected = golden_viescore_parse["mllm_output"], golden_viescore_parse["expected"]
    if isinstance(expected, dict):
        answer = viescore.parse_answer(text, "official")
        assert list(answer.scores) == expected["score"]
        told = expected.get("reasoning", "")
        assert answer.reasoning == ("" if told.startswith("System: ") else told)
    else:
        with pytest.raises(UnparsedAnswer, match=str(expected or "JSON")):
            viescore.parse_answer(text, "official")


def test_official_evaluation(golden_viescore_evaluate: Mapping[str, Any]) -> None:
    judge = Scripted(*golden_viescore_evaluate["judge_outputs_in_call_order_SC_PQ"])
    found = viescore.evaluate(judge, "official")
    assert [found.semantics, found.quality, found.overall] == golden_viescore_evaluate["expected_SC_PQ_O"]
    assert len(judge.asked) == golden_viescore_evaluate["judge_calls"]


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"||V^=^V||\n{GOOD}\n||V^=^V||",
        f"Sure!\n```json\n{GOOD}\n```",
        '{"score": [7, 8], "reasoning": "a\nb"}',
        "[7, 8]",
    ],
)
def test_strict_parsing(text: str) -> None:
    assert viescore.parse_answer(text).scores == (7.0, 8.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ONE, "there are 1 scores, not 2"),
        ('{"score": 4}', "there are 1 scores, not 2"),
        ('{"score": [1, 2, 3]}', "there are 3 scores, not 2"),
        ('{"score": [5, 11]}', "not from 0 to 10"),
        ('{"score": [5, -1]}', "not from 0 to 10"),
        ('{"score": [5, NaN]}', "not finite"),
        ('{"score": ["5", "6"]}', "holds no numbers"),
        ('{"score": []}', "holds no numbers"),
        ('{"reasoning": "ok"}', "holds no numbers"),
        (f"{GOOD} or {GOOD}", "its JSON cannot be read"),
        ("8", "no JSON object"),
        ("[6, 0] because", "no JSON object"),
        ("", "no JSON object"),
        ("rate_limit_exceeded", "did not answer"),
    ],
)
def test_strict_parsing_refuses(text: str, reason: str) -> None:
    with pytest.raises(UnparsedAnswer, match=reason):
        viescore.parse_answer(text)


def test_strict_wants_both_scores_where_official_takes_one() -> None:
    assert viescore.evaluate(Scripted(GOOD, ONE), "official").quality == 7.0
    judge = Scripted(GOOD, ONE, GOOD)
    assert viescore.evaluate(judge, "strict").quality == 7.0
    assert judge.asked == ["semantics", "quality", "quality"], "the part that could be read is not asked again"


@pytest.mark.parametrize(("mode", "calls"), [("official", 6), ("strict", 4)])
def test_nothing_is_guessed_in_the_end(mode: Any, calls: int) -> None:
    judge = Scripted(GOOD, "I like it", *([GOOD, "I like it"] * 2 if mode == "official" else ["hm", "hm"]))
    with pytest.raises(UnparsedAnswer):
        viescore.evaluate(judge, mode)
    assert len(judge.asked) == calls


def test_a_judge_is_asked_at_least_once() -> None:
    with pytest.raises(ValueError, match="attempts is 0"):
        viescore.evaluate(Scripted(), attempts=0)


def test_scores_are_the_lowest_ones() -> None:
    found = viescore.combine([9, 4], [9, 10])
    assert (found.semantics, found.quality, found.overall) == (4, 9, 6.0)


def test_the_second_part_is_about_the_picture_alone() -> None:
    assert "make it red" in viescore.judge_text("semantics", " make it red ")
    assert "make it red" not in viescore.judge_text("quality", "make it red")
    for part in viescore.PARTS:
        form = viescore.judge_text(part, "x").rpartition("else: ")[2].replace("A", "1").replace("B", "2")
        assert viescore.parse_answer(form).scores == (1.0, 2.0)
