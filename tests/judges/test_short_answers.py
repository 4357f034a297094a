"""Probabilities of short answers: from first tokens, over HTTP, and kept on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.core.errors import WrongReturn
from project.core.metrics import values
from project.judges.openai.short_answer_judge import OpenAIShortAnswerJudge, answer_probability
from project.judges.short_answer_cache import CachedShortAnswerJudge
from project.judges.short_answers import ShortAnswer, ShortAnswerJudge
from tests.helpers import chat_server

PICTURES = [np.full((8, 8 + n, 3), 50 * n, dtype=np.uint8) for n in range(3)]
TWO = ("two", "Two", "2")


def listed(*tokens: tuple[str, float]) -> list[tuple[str, float]]:
    return [(token, math.log(mass)) for token, mass in tokens]


def answer(question: str = "Is it red?", *spellings: str) -> ShortAnswer:
    return ShortAnswer(question=question, spellings=spellings or ("yes", "Yes"))


@pytest.mark.parametrize(
    "alternatives, expected",
    [
        (listed(("two", 0.3), (" Two", 0.2), ("2", 0.1), ("three", 0.3), ("The", 0.09)), 0.6),
        (listed(("Three", 0.97), ("3", 0.02)), 0.0),
        (listed(("two", 0.5), ("tw", 0.04), ("three", 0.46)), 0.5),
        (listed(("two", 0.5), ("tw", 0.3), ("three", 0.2)), None),
        (listed(("three", 0.4), ("four", 0.2)), None),
        ([], None),
        ([("two", -0.01), ("three", -math.inf), ("four", math.nan)], math.exp(-0.01)),
        (listed(("two", 0.7), ("two", 0.3), ("**", 1e-9)), 1.0),
    ],
)
def test_all_spellings_are_summed_and_too_little_is_unknown(alternatives: Any, expected: float | None) -> None:
    assert answer_probability(alternatives, TWO) == (expected if expected is None else pytest.approx(expected))


def judge_of(server: Any, **settings: Any) -> OpenAIShortAnswerJudge:
    settings = {"timeout": 20.0, "probe_seconds": 0.05, "patience": 5.0, "image_size": 16} | settings
    return chat_server.client(OpenAIShortAnswerJudge, server.url, **settings)


def test_over_http(start: Any) -> None:
    server = start(rule=lambda image, text: 0.5 + image[0, 0, 0] / 500)
    judge = judge_of(server)
    judge.preflight()
    asked = [[answer(), answer("Is it red?", "no")], [answer(), answer("How many?", "maybe")], []]
    found = judge.probabilities(PICTURES, asked)
    # The server gives all spellings of yes 0.8 of the confidence, those of no 0.8 of the rest, and "Maybe" 0.15.
    assert found[0] == pytest.approx([0.4, 0.4]) and found[1] == pytest.approx([0.48, 0.15]) and found[2] == []
    assert len(server.bodies) == 1 + 3, "a question is sent once, whatever answers to it are wanted"
    texts = [chat_server.shown(body)[1] for body in server.bodies[1:]]
    assert all("number in letters" in text for text in texts) and sum("How many?" in text for text in texts) == 1
    assert (
        judge.name.startswith("openai:tiny-vlm:short-answer-1:") and judge_of(server, top_logprobs=5).name != judge.name
    )


def test_a_question_without_an_answer_is_unknown(start: Any) -> None:
    judge = judge_of(start(script=lambda n, body: (400, {"error": {"message": "content policy"}})))
    assert judge.probabilities(PICTURES[:1], [[answer()]]) == [[None]]


class Grey(ShortAnswerJudge):
    """Grey value / 200 whatever the answer, None for black; counts its answers."""

    asked = 0

    @property
    def name(self) -> str:
        return "grey"

    def preflight(self) -> None:
        """It is ready."""

    def probabilities(
        self, images: Sequence[np.ndarray], answers: Sequence[Sequence[ShortAnswer]]
    ) -> list[list[float | None]]:
        self.asked += sum(map(len, answers))
        return [[float(i.flat[0]) / 200 or None for _ in row] for i, row in zip(images, answers, strict=True)]


def test_a_replay_makes_no_calls(tmp_path: Path) -> None:
    judge = Grey()
    cached = CachedShortAnswerJudge(judge, str(tmp_path))
    cached.preflight()
    asked = [[answer()], [answer(), answer("Is it red?", "no"), answer(), answer("How many?")], []]
    expected = [[None], [0.25] * 4, []]
    assert cached.probabilities(PICTURES, asked) == expected and judge.asked == 4
    assert cached.probabilities(PICTURES, asked) == expected and judge.asked == 5, "what is unknown is asked again"
    assert values(cached.metrics())["judge/cache/hits"] == 3


def test_a_number_that_is_no_probability_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongReturn, match=r"judge 'grey' at .*test_short_answers.py:\d+ must give"):
        CachedShortAnswerJudge(Grey(), str(tmp_path)).probabilities([PICTURES[2] + 110], [[answer()]])
    with pytest.raises(ValueError, match="3 images and 0 lists"):
        CachedShortAnswerJudge(Grey(), str(tmp_path)).probabilities(PICTURES, [])
