"""`OpenAIFreeTextJudge` against a real HTTP server with scripted answers and faults (tests/helpers/chat_server.py)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from project.core.metrics import values
from project.judges.base import JudgeUnavailable
from project.judges.free_text import FreeText, FreeTextRequest
from project.judges.openai.free_text_judge import OpenAIFreeTextJudge
from tests.helpers import chat_server
from tests.helpers.chat_server import written

PICTURES = [np.full((8, 10 + n, 3), 50 * n, dtype=np.uint8) for n in range(3)]
QUICK: dict[str, Any] = {"timeout": 20.0, "probe_seconds": 0.05, "patience": 5.0, "image_size": 16}


def judge_of(*servers: Any, **changes: Any) -> OpenAIFreeTextJudge:
    return chat_server.client(OpenAIFreeTextJudge, [server.url for server in servers], **{**QUICK, **changes})


def request(text: str = "Score it.", *pictures: np.ndarray, attempt: int = 0) -> FreeTextRequest:
    return FreeTextRequest(text=text, pictures=pictures, attempt=attempt)


def means(pictures: list[np.ndarray], text: str, attempt: int) -> str:
    """Tells which pictures it saw, in their order."""
    return f"{text} {attempt} {[(picture.shape[1], int(picture.mean())) for picture in pictures]}"


def test_texts_with_any_number_of_pictures(start: Any) -> None:
    server = start(writer=means)
    judge = judge_of(server)
    first, second, third = PICTURES
    asked = [request("a", second, third), request("a", third, second), request("b"), request("c", first, attempt=2)]
    assert [answer.text for answer in judge.write(asked) if answer] == [
        "a 0 [(11, 50), (12, 100)]",
        "a 0 [(12, 100), (11, 50)]",
        "b 0 []",
        "c 2 [(10, 0)]",
    ]
    assert judge.write([]) == []


def test_the_first_attempt_is_greedy_and_others_are_drawn(start: Any) -> None:
    server = start()
    judge_of(server, max_tokens=77).write([request()])
    judge_of(server).write([request(attempt=2)])
    greedy, drawn = server.bodies
    assert (greedy["temperature"], greedy["seed"], greedy["max_tokens"]) == (0.0, 0, 77)
    assert (drawn["temperature"], drawn["seed"], drawn["max_tokens"]) == (0.3, 2, 1024)
    assert "logprobs" not in drawn


def test_equal_requests_are_sent_once(start: Any) -> None:
    judge = judge_of(server := start())
    written = judge.write([request("a", PICTURES[1]), request("b"), request("a", PICTURES[1].copy())])
    assert written == [FreeText(text="yes")] * 3 and len(server.bodies) == 2
    assert values(judge.metrics())["judge/calls"] == 2


@pytest.mark.parametrize(
    "said, expected",
    [
        ("Well, I should say 7.\n", FreeText(text="Well, I should say 7.")),
        ('```json\n{"score": [7, 8]}\n```', FreeText(text='```json\n{"score": [7, 8]}\n```')),
        ("<think>6 or 7?</think>\n7", FreeText(text="7")),
        ("<think>6 or 7? Or", FreeText(text="", cut_off=True)),
        (written("7", reasoning_content="6 or 7?"), FreeText(text="7")),
        (written('{"score": [7,', "length"), FreeText(text='{"score": [7,', cut_off=True)),
        (written(None, refusal="I'm sorry, I can't help with that."), FreeText(text="")),
        (written("I'm sorry, I can't help with that."), FreeText(text="I'm sorry, I can't help with that.")),
    ],
)
def test_what_servers_write(start: Any, said: Any, expected: FreeText) -> None:
    judge = judge_of(start(writer=lambda pictures, text, attempt: said))
    assert judge.write([request()]) == [expected]
    assert values(judge.metrics())["judge/cut_off"] == float(expected.cut_off)
    assert values(judge.metrics())["judge/cut_off"] == 0, "reset on read"


def test_a_failure_is_tried_again_and_a_refused_request_stays_unanswered(start: Any) -> None:
    def script(number: int, body: dict[str, Any]) -> Any:
        if "forbidden" in chat_server.shown(body)[1]:
            return 400, {"error": {"message": "content policy"}}
        return ("500", "truncated", (200, {"hello": "world"}))[number] if number < 3 else None

    judge = judge_of(start(script=script), concurrency=1)
    assert judge.write([request("a"), request("forbidden")]) == [FreeText(text="yes"), None]
    metrics = values(judge.metrics())
    assert metrics["judge/retries"] == 3 and metrics["judge/failures/rejected"] == 1
    with pytest.raises(JudgeUnavailable, match="every one of 8 questions failed, at last with rejected"):
        judge.write([request(f"forbidden {n}") for n in range(8)])


def test_a_server_away_and_back(start: Any) -> None:
    server = start(writer=means)
    judge = judge_of(server, breaker_failures=2)
    server.kill()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(judge.write([request("a", *PICTURES), request("b")])))
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()
    server.start()
    thread.join(10)
    assert [answer.text[:3] for answer in found] == ["a 0", "b 0"]


def test_nobody_waits_for_ever(start: Any) -> None:
    server = start()
    judge = judge_of(server, patience=0.3, breaker_failures=1)
    assert judge.longest_wait > 0.3
    server.kill()
    with pytest.raises(JudgeUnavailable, match="start the server again"):
        judge.write([request()])
    patient = judge_of(server, patience=600.0, breaker_failures=1)
    threading.Timer(0.3, patient.stop_waiting).start()
    with pytest.raises(JudgeUnavailable):
        patient.write([request()])


def test_the_name_tells_what_changes_an_answer(start: Any) -> None:
    server = start()
    changes: list[dict[str, Any]] = [{}, {"max_tokens": 99}, {"retry_temperature": 0.5}, {"extra_body": {"top_k": 1}}]
    names = [judge_of(server, **change).name for change in changes]
    assert len(set(names)) == len(names) and all(name.startswith("openai:tiny-vlm:free-text-") for name in names)
    same: list[dict[str, Any]] = [{"max_tokens": 1024}, {"image_size": 9}, {"num_pictures": 0}, {"retries": 9}]
    assert {judge_of(server, **change).name for change in same} == {names[0]}


# --------------------------------------------------------------------- preflight


def test_a_judge_that_works_passes(start: Any) -> None:
    server = start(script=lambda n, body: "500" if n == 0 else None)
    assert judge_of(server).preflight() is None
    pictures, _ = chat_server.shown(server.bodies[1])
    assert [picture.shape for picture in pictures] == [(16, 16, 3)] * 2
    judge_of(server, num_pictures=0).preflight()
    assert isinstance(server.bodies[2]["messages"][0]["content"], str)


def says(status: int, message: str) -> dict[str, Any]:
    return {"script": lambda n, body: (status, {"error": {"message": message}})}


def writes(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    return {"writer": lambda pictures, asked, attempt: written(text, finish_reason)}


@pytest.mark.parametrize(
    "server, message",
    [
        (says(400, "At most 1 image(s) may be provided in one prompt."), r'2 pictures at once.*\'{"image": 2}\''),
        (says(400, "At most 0 image(s) may be provided in one prompt."), "does not take pictures.*vision-language"),
        (says(500, "image input is not supported - hint: mmproj"), "does not take pictures.*num_pictures to 0"),
        (says(400, "exceeds the available context size"), "too short for 2 pictures of 16 x 16 .* 1024 tokens"),
        (says(400, "Unsupported parameter: 'seed' is not supported"), r"extra_body to {seed: null}"),
        (says(401, "invalid api key"), "api_key_env"),
        (writes("Let me think", "length"), "comes to no end within 1024 tokens: .*enable_thinking.*max_tokens"),
        (writes("<think>yes or no"), "comes to no end"),
        (writes(" "), "empty text"),
    ],
)
def test_a_judge_that_cannot_write_is_refused_with_the_remedy(
    start: Any, server: dict[str, Callable[..., Any]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        judge_of(start(**server)).preflight()


@pytest.mark.parametrize("wrong", [{"retry_temperature": 0.0}, {"num_pictures": -1}, {"image_size": 0}])
def test_bad_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        chat_server.client(OpenAIFreeTextJudge, "http://localhost:1/v1", **wrong)


def test_a_picture_that_is_none_is_refused(start: Any) -> None:
    with pytest.raises(ValueError, match="give uint8"):
        judge_of(start()).write([request("a", np.zeros((4, 4), dtype=np.uint8))])
