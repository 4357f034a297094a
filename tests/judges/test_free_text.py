"""Requests for free text, and the answers kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.core.errors import WrongReturn
from project.core.metrics import Metric, Sum, values
from project.judges.cache import CachedJudge
from project.judges.free_text import FreeText, FreeTextJudge, FreeTextRequest, check_written
from project.judges.free_text_cache import CachedFreeTextJudge
from project.shapes.judge import DetectorJudge
from project.trajectory import Question

RED, BLUE = (np.full((4, 6, 3), colour, dtype=np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))


class Echo(FreeTextJudge):
    """Says what it is asked; remembers it. An empty request stays unanswered."""

    def __init__(self, name: str = "echo") -> None:
        self.called = name
        self.asked: list[FreeTextRequest] = []
        self.ready = self.stopped = 0

    @property
    def name(self) -> str:
        return self.called

    @property
    def longest_wait(self) -> float:
        return 7.0

    def preflight(self) -> None:
        self.ready += 1

    def stop_waiting(self) -> None:
        self.stopped += 1

    def metrics(self) -> dict[str, Metric]:
        return {"judge/calls": Sum(value=float(len(self.asked)))}

    def write(self, requests: Sequence[FreeTextRequest]) -> list[FreeText | None]:
        self.asked += requests
        return [FreeText(text=f"1 {r.text}", cut_off="long" in r.text) if r.text else None for r in requests]


def request(text: str = "score?", *pictures: np.ndarray, attempt: int = 0) -> FreeTextRequest:
    return FreeTextRequest(text=text, pictures=pictures, attempt=attempt)


def test_the_key_holds_all_that_the_answer_depends_on() -> None:
    different = [
        request(),
        request("score!"),
        request("score?", RED),
        request("score?", BLUE),
        request("score?", RED, BLUE),
        request("score?", BLUE, RED),
        request("score?", RED.reshape(6, 4, 3)),
        request("score?", attempt=1),
        request("score?1"),
        request("score?", attempt=11),
    ]
    assert len({one.key for one in different}) == len(different)
    assert request("score?", RED.copy()).key == request("score?", RED).key


def test_a_replay_makes_no_calls(tmp_path: Path) -> None:
    asked = [request("a", RED), request("a", RED), request("a long one", RED, BLUE), request("a", RED, attempt=1)]
    written = [FreeText(text=f"1 {one.text}", cut_off="long" in one.text) for one in asked]
    first, second = Echo(), Echo()
    cached = CachedFreeTextJudge(first, str(tmp_path))
    cached.preflight()
    assert cached.write(asked) == written
    assert len(first.asked) == 3, "equal requests are sent once"
    assert values(cached.metrics())["judge/calls"] == 3 and cached.longest_wait == 7.0
    again = CachedFreeTextJudge(second, str(tmp_path))
    again.preflight()
    again.stop_waiting()
    assert again.write(asked) == written and again.name == "echo" and again.write([]) == []
    assert second.asked == [] and second.ready == second.stopped == 1
    assert values(again.metrics())["judge/cache/hits"] == 3
    other = Echo("echo:template-2")
    assert CachedFreeTextJudge(other, str(tmp_path)).write(asked) == written and len(other.asked) == 3


def test_no_answer_is_never_kept(tmp_path: Path) -> None:
    cached = CachedFreeTextJudge(judge := Echo(), str(tmp_path))
    for _ in range(2):
        assert cached.write([request(""), request("a")]) == [None, FreeText(text="1 a")]
    assert [one.text for one in judge.asked] == ["", "a", ""]


def test_a_digit_stays_a_text_beside_the_confidences_of_one_folder(tmp_path: Path) -> None:
    """Both caches may share a folder, and a text that looks like a number is still a text."""
    CachedJudge(DetectorJudge(), str(tmp_path)).answer(
        [np.zeros((64, 64, 3), dtype=np.uint8)], [[Question(text="is there a red circle ?")]], [""]
    )

    class Digit(Echo):
        def write(self, requests: Sequence[FreeTextRequest]) -> list[FreeText | None]:
            return [FreeText(text="1") for _ in requests]

    for _ in range(2):
        cached = CachedFreeTextJudge(Digit(), str(tmp_path))
        cached.preflight()
        assert cached.write([request("score?", RED)]) == [FreeText(text="1")]


@pytest.mark.parametrize(
    "answers, message",
    [
        (lambda n: [None] * (n + 1), "must answer each of 2 requests"),
        (lambda n: None, "must answer each of 2 requests"),
        (lambda n: ["1"] * n, "of type str: return FreeText"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, answers: Callable[[int], Any], message: str) -> None:
    class Wrong(Echo):
        def write(self, requests: Sequence[FreeTextRequest]) -> Any:
            return answers(len(requests))

    judge = Wrong()
    with pytest.raises(WrongReturn, match=rf"judge 'echo' at .*test_free_text.py:\d+.*{message}"):
        CachedFreeTextJudge(judge, str(tmp_path)).write([request("a"), request("b")])
    with pytest.raises(WrongReturn, match=message):
        check_written(answers(2), 2, judge.name, judge.write)


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "texts.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(ValueError, match=r"texts\.sqlite cannot be used .*delete it"):
        CachedFreeTextJudge(Echo(), str(tmp_path)).preflight()
    with pytest.raises(ValueError, match="at least 100000"):
        CachedFreeTextJudge(Echo(), str(tmp_path), max_bytes=10)
