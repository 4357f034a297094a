"""What benchmarks whose judge answers in free text share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.benchmarks.asking import ATTEMPTS, Enquiry
from project.benchmarks.pictures.base import Picture
from project.benchmarks.pictures.free_text import rows_of_texts
from project.benchmarks.scoring import UnparsedAnswer
from project.core.errors import WrongReturn
from project.judges.free_text import FreeText, FreeTextJudge, FreeTextRequest
from tests.helpers.score_runs import grey


@dataclass
class Said(FreeTextJudge):
    """Answers by a function of the request."""

    answer: Callable[[FreeTextRequest], Any]
    asked: int = 0

    @property
    def name(self) -> str:
        return "said"

    def preflight(self) -> None:
        """It is ready."""

    def write(self, requests: Sequence[FreeTextRequest]) -> list[FreeText | None]:
        self.asked += len(requests)
        return [self.answer(request) for request in requests]


def number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UnparsedAnswer("it is no number", text) from None


def rows(judge: FreeTextJudge, levels: Sequence[int]) -> Any:
    """Of several pictures of one item."""
    pictures = [Picture(item="a", sample=n, file=Path(f"{n}.png"), tried=()) for n in range(len(levels))]
    enquiries = [
        Enquiry(
            id="a",
            template="levels-1",
            requests=(FreeTextRequest(text="How light is it?", pictures=(grey(level),)),),
            read=number,
            record=lambda answers: answers[0],
        )
        for level in levels
    ]
    return rows_of_texts(judge, enquiries, pictures, lambda level: {"level": level})


def level_of(request: FreeTextRequest) -> FreeText:
    return FreeText(text=str(int(np.mean(request.pictures[0]))))


def test_several_pictures_of_one_item_are_asked_about_together() -> None:
    assert rows(Said(level_of), [5, 7]) == [{"level": 5, "texts": ["5"]}, {"level": 7, "texts": ["7"]}]


def test_what_cannot_be_read_or_is_not_answered_has_a_reason() -> None:
    def answer(request: FreeTextRequest) -> FreeText | None:
        said = {"5": FreeText(text="light"), "6": None, "7": FreeText(text="7", cut_off=True)}
        level = level_of(request)
        return said.get(level.text, level)

    judge = Said(answer)
    prose, silent, cut, fine = rows(judge, [5, 6, 7, 8])
    assert "it is no number, in the answer 'light'" in prose and "did not answer" in silent and "cut off" in cut
    assert fine == {"level": 8, "texts": ["8"]}
    assert judge.asked == ATTEMPTS + 1 + ATTEMPTS + 1


def test_a_judge_that_returns_something_else_is_a_fault_of_its_class() -> None:
    with pytest.raises(WrongReturn, match="gave an answer of type str"):
        rows(Said(lambda request: "5"), [5])
