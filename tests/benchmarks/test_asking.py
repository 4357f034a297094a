"""Items of the benchmarks, asked of a scripted server: read, asked again, and never guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from project.benchmarks import gedit, tiif, wise
from project.benchmarks.asking import Enquiry, Judged, Unjudged, ask
from project.benchmarks.gedit import GEditItem, GEditRecord
from project.benchmarks.tiif import TIIFItem, TIIFRecord
from project.benchmarks.viescore import VIEScore
from project.benchmarks.wise import WISEItem, WISERecord, WISEVerdict
from project.judges.base import JudgeUnavailable
from project.judges.free_text import FreeText, FreeTextJudge, FreeTextRequest
from project.judges.free_text_cache import CachedFreeTextJudge
from project.judges.openai.free_text_judge import OpenAIFreeTextJudge
from tests.helpers import chat_server
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401

PICTURES = [np.full((8, 8 + n, 3), 40 * n, dtype=np.uint8) for n in range(6)]
SOURCE, EDITED = PICTURES[1], PICTURES[2]
SCORES = "Consistency: 2\nRealism: 1\nAesthetic Quality: 2"
REFUSAL = "I'm sorry, I can't assist with that."
Said = Callable[[int], Any]
"""Attempt -> text, or a whole completion."""


class Script(FreeTextJudge):
    """Gives a list of answers one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[FreeTextRequest]()

    @property
    def name(self) -> str:
        return "script"

    def preflight(self) -> None:
        """It is ready."""

    def write(self, requests: Sequence[FreeTextRequest]) -> list[FreeText | None]:
        self.asked += requests
        said = [self.answers.pop(0) for _ in requests]
        return [FreeText(text=text) if isinstance(text, str) else text for text in said]


def prompt(number: int) -> WISEItem:
    return WISEItem(id=number, prompt="a moon cake", explanation="a pastry", category="culture", subcategory="Festival")


def edit(key: str = "k") -> GEditItem:
    return GEditItem(group="ps_human", language="cn", key=key, instruction="smile", intersection=True)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield from chat_server.starting(monkeypatch)


def judge_of(server: Any, **settings: Any) -> OpenAIFreeTextJudge:
    settings = {"timeout": 20.0, "probe_seconds": 0.05, "patience": 5.0, "image_size": 16} | settings
    return chat_server.client(OpenAIFreeTextJudge, server.url, **settings)


def test_a_mixed_lot_of_answers(start: Any, tmp_path: Any) -> None:
    """Plain, readable at the second attempt, a refusal, prose, cut off, and a request that the server does not take."""
    said: dict[int, Said] = {
        0: lambda attempt: f"**Scores**\n\n{SCORES}\n",
        1: lambda attempt: SCORES if attempt == 1 else "It is a very good picture.",
        2: lambda attempt: REFUSAL,
        3: lambda attempt: "Consistency: 9\nRealism: 1\nAesthetic Quality: 2",
        4: lambda attempt: chat_server.written(SCORES, "length"),
    }

    def place(pictures: list[np.ndarray]) -> int:
        return pictures[0].shape[1] - 8

    def script(number: int, body: dict[str, Any]) -> Any:
        refused = (400, {"error": {"message": "content policy"}})
        return refused if place(chat_server.shown(body)[0]) == 5 else None

    server = start(writer=lambda pictures, text, attempt: said[place(pictures)](attempt), script=script)
    judge = CachedFreeTextJudge(judge_of(server), str(tmp_path))
    enquiries = [wise.enquiry(prompt(n), picture) for n, picture in enumerate(PICTURES)]
    found = ask(judge, enquiries)
    record = {"consistency": 2.0, "realism": 1.0, "aesthetic_quality": 2.0}
    assert [one.id for one in found] == [str(n) for n in range(6)]
    assert [one.attempts for one in found] == [1, 2, 3, 3, 3, 1]
    assert [one.record for one in found if isinstance(one, Judged)] == [WISERecord(id=n, **record) for n in (0, 1)]
    assert found[1].texts == (SCORES,)
    failures = [one for one in found if isinstance(one, Unjudged)]
    assert [one.reason for one in failures] == ["unparsed"] * 3 + ["unanswered"]
    assert failures[0].texts == (REFUSAL,) and "there is no score of consistency" in failures[0].message
    assert "Consistency is 9" in failures[1].message and "cut off" in failures[2].message
    assert failures[3].texts == (None,) and "did not answer" in failures[3].message
    assert {one.judge for one in found} == {f"{judge.name}:wise-legacy-1"}
    asked = len(server.bodies)
    assert asked == 6 + 4 + 3
    # Again: the same answers, from the disk; only the request that was not answered is sent.
    assert ask(judge, enquiries) == found and len(server.bodies) == asked + 1


def test_a_server_that_stops_stops_the_asking(start: Any) -> None:
    server = start()
    judge = judge_of(server, patience=0.2, breaker_failures=1)
    server.kill()
    with pytest.raises(JudgeUnavailable):
        ask(judge, [wise.enquiry(prompt(1), PICTURES[0])])


def test_the_verified_edition(start: Any) -> None:
    server = start(writer=lambda pictures, text, attempt: "Score: 1" if "Write 1" in text else "no digit")
    (found,) = ask(judge_of(server), [wise.verdict_enquiry(prompt(3), PICTURES[0])])
    assert isinstance(found, Judged) and found.record == WISEVerdict(id=3, score=1)
    assert found.judge.endswith(":wise-verified-1")


def test_all_questions_of_a_picture() -> None:
    item = TIIFItem(id="t/0/short", type="t", length="short", prompt="p", questions=("a?", "b?"), expected=("yes",) * 2)
    judge = Script("yes\nmaybe", "1. no\n2. yes")
    (found,) = ask(judge, [tiif.enquiry(item, PICTURES[0])])
    assert isinstance(found, Judged) and found.record == TIIFRecord(id="t/0/short", answers=("no", "yes"))
    assert "a?" in judge.asked[0].text and found.judge == "script:tiif-1"
    (found,) = ask(Script("Well:\nno\nyes"), [tiif.enquiry(item, PICTURES[0], "official")], attempts=1)
    assert isinstance(found, Judged) and found.record.answers == ("no", "yes")


def test_an_edit_is_shown_beside_its_source(start: Any) -> None:
    def writer(pictures: list[np.ndarray], text: str, attempt: int) -> str:
        widths = [picture.shape[1] for picture in pictures]
        scores = {(9, 10): "[8, 6]", (10,): "[9, 5]"}[tuple(widths)]
        assert ("smile" in text) == (len(pictures) == 2)
        return f'Here it is:\n```json\n{{"score": {scores}, "reasoning": "fine"}}\n```'

    (found,) = ask(judge_of(start(writer=writer)), [gedit.enquiry(edit(), SOURCE, EDITED)])
    assert isinstance(found, Judged) and found.record == GEditRecord(id="ps_human/cn/k", semantics=6.0, quality=5.0)
    assert len(found.texts) == 2 and found.judge.endswith(":viescore-1")


GOOD, BETTER = '{"score": [7, 8]}', '{"score": [9, 9]}'


@pytest.mark.parametrize(
    "mode, answers, semantics, quality",
    [("strict", ("?", GOOD, BETTER), 9.0, 7.0), ("official", ("?", GOOD, BETTER, BETTER), 9.0, 9.0)],
)
def test_the_official_script_asks_both_parts_again(
    mode: Any, answers: Sequence[str], semantics: float, quality: float
) -> None:
    judge = Script(*answers)
    (found,) = ask(judge, [gedit.enquiry(edit(), SOURCE, EDITED, mode)])
    assert isinstance(found, Judged) and (found.record.semantics, found.record.quality) == (semantics, quality)
    assert judge.answers == [] and [one.attempt for one in judge.asked] == [0, 0, 1, 1][: len(answers)]


@pytest.mark.parametrize(("mode", "calls"), [("official", 6), ("strict", 4)])
def test_nothing_is_guessed_in_the_end(mode: Any, calls: int) -> None:
    judge = Script(GOOD, "I like it", *([GOOD, "I like it"] * 2 if mode == "official" else ["I like it"] * 2))
    (found,) = ask(judge, [gedit.enquiry(edit(), SOURCE, EDITED, mode)])
    assert isinstance(found, Unjudged) and found.reason == "unparsed" and "no JSON object" in found.message
    assert len(judge.asked) == calls and found.texts == (GOOD, "I like it")


def test_official_evaluation(golden_viescore_evaluate: Mapping[str, Any]) -> None:
    judge = Script(*golden_viescore_evaluate["judge_outputs_in_call_order_SC_PQ"])
    (found,) = ask(judge, [gedit.enquiry(edit(), SOURCE, EDITED, "official")])
    assert isinstance(found, Judged)
    semantics, quality = found.record.semantics, found.record.quality
    assert semantics is not None and quality is not None
    overall = VIEScore(semantics=semantics, quality=quality).overall
    assert [semantics, quality, overall] == golden_viescore_evaluate["expected_SC_PQ_O"]
    assert len(judge.asked) == golden_viescore_evaluate["judge_calls"]


def test_official_reading_still_wants_all_scores() -> None:
    (found,) = ask(Script("Consistency: 2"), [wise.enquiry(prompt(1), PICTURES[0], "official")], attempts=1)
    assert isinstance(found, Unjudged) and "no score of realism, aesthetic quality" in found.message
    (found,) = ask(Script("2\n1\n0"), [wise.enquiry(prompt(1), PICTURES[0], "official")], attempts=1)
    assert isinstance(found, Judged) and found.record.realism == 1.0


def test_nothing_more_is_asked_of_an_item_that_is_not_answered() -> None:
    judge = Script("?", None, GOOD)
    found = ask(judge, [gedit.enquiry(edit("a"), SOURCE, EDITED)])
    assert [type(one) for one in found] == [Unjudged] and len(judge.asked) == 2
    assert found[0].texts == ("?", None) and found[0].attempts == 1


def test_a_mistake_in_reading_is_no_unparsed_answer() -> None:
    def read(text: str) -> int:
        raise ZeroDivisionError

    request = FreeTextRequest(text="a")
    enquiry = Enquiry(id="1", template="t", requests=(request,), read=read, record=lambda answers: answers[0])
    with pytest.raises(ZeroDivisionError):
        ask(Script("x"), [enquiry])


def test_bad_input_is_refused() -> None:
    twice = [wise.verdict_enquiry(prompt(1), PICTURES[0])] * 2
    with pytest.raises(ValueError, match="items to judge occur more than once: 1"):
        ask(Script(), twice)
    with pytest.raises(ValueError, match="attempts is 0"):
        ask(Script(), twice[:1], attempts=0)
    assert ask(Script(), []) == []
