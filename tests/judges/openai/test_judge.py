"""`OpenAIJudge` against a real HTTP server with scripted answers and faults (tests/chat_server.py)."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.core.metrics import values
from project.judges.base import JudgeUnavailable
from project.judges.cache import CachedJudge
from project.judges.openai.judge import OpenAIJudge
from project.judges.openai.server import Server
from project.judges.openai.text_judge import OpenAITextJudge
from project.judges.openai.yes_no_model import first_token_confidence, read_reply
from project.judges.templates import judge_text
from project.shapes.decomposer import scene_questions
from project.shapes.judge import DetectorJudge
from project.shapes.renderer import render
from project.shapes.scenes import KINDS, sample_layout
from project.shapes.split import SPLITS, sample_scene_of
from project.trajectory import Question
from tests.helpers import chat_server

PICTURES = [np.full((8, 10, 3), 50 * n, dtype=np.uint8) for n in range(4)]
ASKED = [Question(text="Is there a circle?"), Question(text="Is it red?"), Question(text="Is it sharp?")]
QUICK: dict[str, Any] = {"timeout": 20.0, "probe_seconds": 0.05, "patience": 5.0, "image_size": 16}


def judge_of(*servers: Any, **changes: Any) -> OpenAIJudge:
    return chat_server.client(OpenAIJudge, [server.url for server in servers], **{**QUICK, **changes})


def ask(judge: OpenAIJudge, pictures: list[np.ndarray] = PICTURES) -> list[list[float | None]]:
    return judge.answer(pictures, [ASKED] * len(pictures), ["a red circle"] * len(pictures))


# --------------------------------------------------------------------- confidences


def listed(**masses: float) -> list[tuple[str, float]]:
    return [(token.replace("_", " "), math.log(mass)) for token, mass in masses.items()]


def test_all_spellings_are_summed() -> None:
    tokens = [("Yes", 0.2), (" yes", 0.1), ("▁YES", 0.05), ("ĠYes.", 0.05), ("No", 0.06), (" no", 0.04), ("None", 0.3)]
    shuffled = random.Random(0).sample(tokens, len(tokens))
    assert first_token_confidence([(t, math.log(p)) for t, p in shuffled]) == pytest.approx(0.4 / 0.5)


def test_without_either_there_is_no_answer() -> None:
    assert first_token_confidence([]) is None
    assert first_token_confidence(listed(The=0.7, Not=0.2)) is None
    assert first_token_confidence([("Yes", -9999.0), ("No", -math.inf), ("The", -0.1)]) is None
    assert first_token_confidence([("Yes", math.nan), ("The", -0.1)]) is None


def test_an_improbable_answer_is_none() -> None:
    """A model that is about to think says neither yes nor no, whatever is left for both."""
    tokens = [*listed(Yes=2e-6, No=1e-6), ("<think>", -1e-5)]
    assert first_token_confidence(tokens, minimum_mass=0.01) is None
    assert first_token_confidence(tokens) == pytest.approx(2 / 3)
    assert first_token_confidence(listed(Yes=0.009, No=0.003, The=0.9), minimum_mass=0.01) == pytest.approx(0.75)


def test_an_answer_beyond_the_list_is_zero_only_if_it_must_be_small() -> None:
    assert first_token_confidence(listed(Yes=0.9, The=0.06, A=0.03)) == 1.0
    assert first_token_confidence(listed(No=0.999)) == 0.0
    # No may have up to 0.4 of the rest: between 0.6 and 1 is no answer.
    assert first_token_confidence(listed(Yes=0.6)) is None
    assert first_token_confidence(listed(Yes=0.5, The=0.1)) is None


def test_the_token_that_was_chosen_counts_once() -> None:
    found = chat_server.completion(0.7)
    token = found["choices"][0]["logprobs"]["content"][0]
    assert first_token_confidence(read_reply(found).alternatives) == pytest.approx(0.7)
    token["top_logprobs"] = [t for t in token["top_logprobs"] if t["token"] != token["token"]]
    assert first_token_confidence(read_reply(found).alternatives) == pytest.approx(0.7)


def test_answers_of_a_server_are_those_of_the_rule(start: Any) -> None:
    server = start()
    judge = judge_of(server, show_request=True)
    answers = ask(judge)
    texts = {t for _, t in map(chat_server.asked, server.bodies)}
    for picture, row in zip(PICTURES, answers, strict=True):
        for question, answer in zip(ASKED, row, strict=True):
            (text,) = [t for t in texts if question.text in t and "a red circle" in t]
            assert answer == pytest.approx(chat_server.by_hash(picture, text), abs=1e-9)
    body = server.bodies[0]
    assert (body["max_tokens"], body["temperature"], body["logprobs"], body["top_logprobs"]) == (1, 0, True, 20)
    assert judge.answer([], [], []) == [] and judge.answer(PICTURES[:1], [()], [""]) == [[]]


def test_the_detector_behind_http_says_what_it_says_in_process(start: Any) -> None:
    rng = np.random.default_rng(0)
    scenes = [sample_scene_of(rng, KINDS[n % 5], SPLITS[n % 3]) for n in range(10)]
    pictures = [render(sample_layout(rng, scene)) for scene in [*scenes[1:], scenes[0]]]
    questions = [scene_questions(scene) for scene in scenes]
    here = DetectorJudge()

    def rule(image: np.ndarray, text: str) -> float:
        question = text.partition("Question: ")[2].partition("\n")[0]
        (((value,),)) = here.answer([image], [[Question(text=question)]], [""])
        assert value is not None
        return min(max(value, 1e-9), 1 - 1e-9)

    far = judge_of(start(rule=rule), concurrency=2).answer(pictures, questions, [""] * 10)
    near = here.answer(pictures, questions, [""] * 10)
    for there, expected in zip(far, near, strict=True):
        assert there == pytest.approx(expected, abs=1e-5)  # one by one, the detector rounds differently


def test_equal_questions_about_equal_pictures_are_asked_once(start: Any) -> None:
    server = start()
    judge = judge_of(server)
    answers = ask(judge, [PICTURES[1], PICTURES[2], PICTURES[1].copy(), PICTURES[1].reshape(10, 8, 3)])
    assert answers[0] == answers[2] != answers[3]
    assert len(server.bodies) == 9 and values(judge.metrics())["judge/calls"] == 9


def test_the_name_tells_what_changes_an_answer(start: Any) -> None:
    server = start()
    changes: list[dict[str, Any]] = [
        {},
        {"show_request": True},
        {"model": "other"},
        {"text_fallback": True},
        {"minimum_mass": 0.5},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
    ]
    names = [judge_of(server, **change).name for change in changes]
    assert len(set(names)) == len(names)
    assert judge_of(server, concurrency=1, retries=0, patience=1.0).name == names[0]
    assert OpenAIJudge(Server("https://elsewhere.example/v1", "tiny-vlm")).name == names[0]


def test_the_request_is_shown_only_if_told_and_cached_answers_do_not_cross(start: Any, tmp_path: Path) -> None:
    server = start()
    blind, told = (CachedJudge(judge_of(server, show_request=shown), str(tmp_path)) for shown in (False, True))
    said = []
    for judge in (blind, told, blind, told):
        said.append(judge.answer(PICTURES[:1], [ASKED[:1]], ["a red circle"]))
    texts = [chat_server.asked(body)[1] for body in server.bodies]
    assert texts == [judge_text(ASKED[0].text), judge_text(ASKED[0].text, "a red circle")], "each was asked once"
    assert said[0] == said[2] != said[1] == said[3]
    assert "red circle" not in texts[0]
    # Whatever it was made for, the same picture and question are one request.
    judge_of(server).answer([PICTURES[1]] * 2, [ASKED[:1]] * 2, ["a red circle", "a green square"])
    assert len(server.bodies) == 3


def test_questions_about_texts(start: Any) -> None:
    server = start(script=lambda n, body: "500" if "Is it long?" in str(body) and "two" in str(body) else None)
    judge = OpenAITextJudge(Server(server.url, "tiny-vlm", retries=1))
    judge.preflight()
    texts, asked, prompts = ["one", "two", "one"], ["Is it long?", "Is it clear?"], ["a circle", "a square", "a circle"]
    answers = judge.answer_texts(texts, asked, prompts)
    assert answers[0] == answers[2] and answers[1][0] is None
    said = [chat_server.asked(body)[1] for body in server.bodies]
    (text,) = {text for text in said if "one" in text and "a circle" in text and "Is it clear?" in text}
    assert answers[0][1] == pytest.approx(chat_server.by_hash(chat_server.NO_PICTURE, text))
    assert values(judge.metrics())["judge/calls"] == 1 + 4 + 1 and judge.answer_texts([], asked, []) == []
    assert judge.name != judge_of(server).name
    with pytest.raises(ValueError, match="one prompt per text"):
        judge.answer_texts(["one"], asked, [])


# --------------------------------------------------------------------- many at once


def test_concurrency_is_bounded_and_pays(start: Any) -> None:
    server = start(seconds=0.05)
    began = time.monotonic()
    ask(judge_of(server, concurrency=6))
    assert server.most_at_work == 6
    assert time.monotonic() - began < 12 * 0.05, "no faster than one by one"


def test_the_bound_holds_over_several_callers(start: Any) -> None:
    server = start(seconds=0.03)
    judge = judge_of(server, concurrency=3)
    rows: dict[int, Any] = {}
    callers = [threading.Thread(target=lambda n=n: rows.update({n: ask(judge, PICTURES[n : n + 2])})) for n in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert server.most_at_work == 3
    assert rows[0][1] == rows[1][0] and rows[1][1] == rows[2][0]


def test_the_less_loaded_server_is_asked(start: Any) -> None:
    quick, slow = start(seconds=0.01), start(seconds=0.3)
    ask(judge_of(slow, quick, concurrency=2))
    assert len(slow.bodies) + len(quick.bodies) == 12 and len(slow.bodies) <= 4


# --------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "fault, kind",
    [
        ("hang", "timeout"),
        ("500", "server_error"),
        ("truncated", "malformed"),
        ("no log-probs", "incomplete"),
        ((429, {"error": "slow down"}), "rate_limit"),
        ((200, {"choices": []}), "malformed"),
        ((200, "hello"), "malformed"),
    ],
)
def test_a_passing_fault_is_asked_again(start: Any, fault: Any, kind: str) -> None:
    faulty = start(script=lambda n, body: fault if n % 3 == 0 else None)
    judge = judge_of(faulty, timeout=0.5 if fault == "hang" else 20.0)
    answers, expected = ask(judge), ask(judge_of(start()))
    assert answers == expected
    metrics = values(judge.metrics())
    assert metrics[f"judge/failures/{kind}"] == metrics["judge/retries"] == len(faulty.faults) >= 4
    assert metrics["judge/calls"] == 12 + len(faulty.faults) and metrics["judge/request_seconds"] > 0
    assert set(values(judge.metrics()).values()) == {0.0}, "read twice"


def test_a_lasting_fault_is_no_answer(start: Any) -> None:
    """One question is never answered, the others are: None, and not 0."""
    server = start(script=lambda n, body: "500" if "Is it red?" in str(body) else None)
    answers = ask(judge := judge_of(server, retries=2, breaker_failures=100))
    assert [[value is None for value in row] for row in answers] == [[False, True, False]] * 4
    assert values(judge.metrics())["judge/failures/server_error"] == 4 * 3


def test_a_question_that_is_not_taken_is_not_repeated(start: Any) -> None:
    too_long = (400, {"error": {"message": "maximum context length is 64 tokens"}})
    server = start(script=lambda n, body: too_long if "Is it red?" in str(body) else None)
    answers = ask(judge := judge_of(server))
    assert [row[1] for row in answers] == [None] * 4 and all(row[0] is not None for row in answers)
    assert values(judge.metrics())["judge/retries"] == 0


def test_neither_yes_nor_no_is_no_answer(start: Any) -> None:
    server = start(script=lambda n, body: "neither" if "Is it red?" in str(body) else None)
    for fallback in (False, True):
        judge = judge_of(server, text_fallback=fallback)
        assert [row[1] for row in ask(judge)] == [None] * 4
        assert values(judge.metrics())["judge/undecided"] == 4


def test_the_fallback_to_the_text_is_an_option_and_counted(start: Any) -> None:
    server = start(script=lambda n, body: "no log-probs")
    with pytest.raises(JudgeUnavailable, match=r"every one of 12 questions failed.*without log-prob"):
        ask(judge_of(server, retries=1))
    judge = judge_of(server, text_fallback=True)
    hard = ask(judge)
    soft = ask(judge_of(start()))
    assert hard == [[float(value >= 0.5) for value in row] for row in soft]  # type: ignore[operator]
    assert values(judge.metrics())["judge/fallbacks"] == 12


def test_a_storm_of_faults_makes_no_wrong_answer(start: Any) -> None:
    """10% time-outs, 5% each of 500s, truncated JSON and missing log-probs; few retries, so that some are lost."""
    storm = random.Random(5)
    faults = ["hang"] * 10 + ["500"] * 5 + ["truncated"] * 5 + ["no log-probs"] * 5

    def script(n: int, body: Any) -> str | None:
        chosen = storm.randrange(100)
        return faults[chosen] if chosen < len(faults) else None

    pictures = [np.full((8, 8, 3), n, dtype=np.uint8) for n in range(40)]
    judge = judge_of(start(script=script, hang_seconds=2.0), retries=1, timeout=1.0, breaker_failures=30)
    answers, expected = ask(judge, pictures), ask(judge_of(start()), pictures)
    lost = [a is None for row in answers for a in row]
    assert 0 < sum(lost) < 30, sum(lost)
    for row, right in zip(answers, expected, strict=True):
        assert all(a is None or a == r for a, r in zip(row, right, strict=True))
    metrics = values(judge.metrics())
    assert all(metrics[f"judge/failures/{kind}"] for kind in ("timeout", "server_error", "malformed", "incomplete"))


# --------------------------------------------------------------------- servers that go away


def test_a_server_killed_and_restarted_loses_no_answer(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = start(seconds=0.02)
    judge = judge_of(server, concurrency=3, retries=1, breaker_failures=3)
    pictures = [np.full((8, 8, 3), n, dtype=np.uint8) for n in range(30)]

    def interrupt() -> None:
        while len(server.bodies) < 30:
            time.sleep(0.005)
        server.kill()
        time.sleep(0.5)
        server.start()

    killer = threading.Thread(target=interrupt)
    killer.start()
    with caplog.at_level(logging.WARNING):
        answers = ask(judge, pictures)
    killer.join()
    assert answers == ask(judge_of(start()), pictures)
    assert values(judge.metrics())["judge/failures/connection"] >= 3
    messages = [record.message for record in caplog.records]
    assert sum("does not answer" in message for message in messages) == 1, messages
    assert sum("answers again" in message for message in messages) == 1


def test_a_question_outlives_a_server_that_goes_away_before_its_breaker_opens(start: Any) -> None:
    server = start()
    judge = judge_of(server, concurrency=3, retries=1, breaker_failures=1000)
    server.kill()
    comeback = threading.Timer(0.5, server.start)
    comeback.start()
    answers = ask(judge)
    comeback.join()
    assert answers == ask(judge_of(start()))


def test_the_others_go_on_without_a_dead_server(start: Any) -> None:
    dead, alive = start(), start(seconds=0.01)
    judge = judge_of(dead, alive, concurrency=2, breaker_failures=2)
    dead.kill()
    assert ask(judge) == ask(judge_of(start()))
    before = len(dead.bodies)
    dead.start()
    deadline = time.monotonic() + 5
    while len(dead.bodies) < before + 3 and time.monotonic() < deadline:
        ask(judge)
    assert len(dead.bodies) >= before + 3, "the server that came back is not asked again"


def test_a_server_that_was_away_for_longer_than_the_patience_is_used_again(start: Any) -> None:
    dead, alive = start(), start(seconds=0.01)
    judge = judge_of(dead, alive, concurrency=2, breaker_failures=1, patience=0.2)
    dead.kill()
    ask(judge)
    time.sleep(0.6)  # by now its probe has ended
    before = len(dead.bodies)
    dead.start()
    deadline = time.monotonic() + 5
    while len(dead.bodies) < before + 3 and time.monotonic() < deadline:
        ask(judge)
    assert len(dead.bodies) >= before + 3


@pytest.mark.parametrize("how", ["refused", "hangs", "denied"])
def test_a_dead_judge_is_waited_for_and_then_said_to_be_dead(start: Any, how: str) -> None:
    server = start(script=lambda n, body: "hang" if how == "hangs" else None, hang_seconds=0.5)
    judge = judge_of(server, patience=0.6, timeout=0.1, breaker_failures=2, retries=2)
    if how == "refused":
        server.kill()
    elif how == "denied":
        server.key = "revoked"
    # The last word is what helps.
    remedy = "environment variable that holds the key" if how == "denied" else "start the server again"
    began = time.monotonic()
    with pytest.raises(JudgeUnavailable, match=rf"no judge has answered for 1 s.*{remedy}$"):
        ask(judge)
    assert 0.6 <= time.monotonic() - began < 3
    if how == "refused":
        server.start()
        assert all(value is not None for row in ask(judge) for value in row), "it does not recover"


def test_a_question_that_fails_each_time_is_given_up_though_the_server_is_there(start: Any) -> None:
    """The probe is answered, every question is not: no breaker setting may turn this into an endless loop."""
    judge = judge_of(start(script=lambda n, body: None if chat_server.asked(body)[0].shape[0] == 16 else "500"), **{
        "breaker_failures": 1, "retries": 2, "patience": 20.0, "image_size": 16,
    })  # fmt: skip
    began = time.monotonic()
    with pytest.raises(JudgeUnavailable, match="every one of 12 questions failed"):
        ask(judge)
    assert time.monotonic() - began < 30


def test_a_caller_that_is_interrupted_does_not_wait_on(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    judge = judge_of(server, breaker_failures=1, patience=60.0)
    server.kill()

    def interrupted(*_: Any, **__: Any) -> None:
        time.sleep(0.3)
        raise KeyboardInterrupt

    monkeypatch.setattr("project.judges.openai.servers.wait", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(judge)
    assert time.monotonic() - began < 3


# --------------------------------------------------------------------- preflight


def test_a_judge_that_works_passes(start: Any) -> None:
    server = start(script=lambda n, body: "500" if n == 0 else None)
    judge = judge_of(server, image_size=24)
    assert judge.preflight() is None
    assert len(server.bodies) == 2


def said(status: int, message: str) -> Callable[..., Any]:
    return lambda n, body: (status, {"error": {"message": message}})


# What servers really say (vLLM, SGLang, llama.cpp, OpenAI).
BAD_SERVERS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "context too short, vLLM": (
        said(400, "The decoder prompt (length 1065) is longer than the maximum model length of 512."),
        ["context is too short", "16 x 16 pixels", "--max-model-len", "--ctx-size", "length 1065"],
    ),
    "context too short, llama.cpp": (
        said(400, "the request exceeds the available context size, try increasing it"),
        ["context is too short", "--ctx-size"],
    ),
    "log-probs bounded, vLLM": (
        said(400, "Requested sample logprobs of 20, which is greater than max allowed: 5"),
        ["--max-logprobs 20", "greater than max allowed: 5"],
    ),
    "no log-probs": (lambda n, body: "no log-probs", ["without log-probabilities", "text_fallback"]),
    "neither yes nor no": (lambda n, body: "neither", ["begins its answer with 'The'", "enable_thinking"]),
    "no pictures, llama.cpp": (
        said(500, "image input is not supported - hint: you may need to provide the mmproj"),
        ["does not take the picture", "vision-language model"],
    ),
    "no chat completions": (lambda n, body: (200, {"hello": "world"}), ["OpenAI-compatible server?"]),
    "a redirect": (lambda n, body: (307, {"location": "elsewhere"}), ["elsewhere (307", "base_url"]),
    "broken": (lambda n, body: "500", ["CUDA error", "server's log"]),
    "hangs": (lambda n, body: "hang", ["no answer within 0.4 s", "raise timeout"]),
}


@pytest.mark.parametrize("case", BAD_SERVERS)
def test_preflight_names_what_is_wrong_with_a_server(start: Any, case: str) -> None:
    script, parts = BAD_SERVERS[case]
    server = start(script=script)
    with pytest.raises(ValueError) as caught:
        judge_of(server, timeout=0.4).preflight()
    assert all(part in str(caught.value) for part in [server.url, *parts]), caught.value


def test_preflight_names_a_short_list(start: Any) -> None:
    found = chat_server.completion(0.9)
    found["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = [{"token": "Yes", "logprob": -0.6}]
    server = start(script=lambda n, body: (200, found))
    with pytest.raises(ValueError, match=r"lists only 1 of 20 .*--max-logprobs"):
        judge_of(server).preflight()


def test_preflight_names_a_wrong_address(start: Any) -> None:
    server = start()
    root = server.url.removesuffix("/v1")
    with pytest.raises(ValueError, match=r"no chat completions under this address .*up to and including /v1"):
        chat_server.client(OpenAIJudge, root, **QUICK).preflight()
    server.kill()
    with pytest.raises(ValueError, match=rf"{server.url}: nothing answers there .*start the server"):
        judge_of(server).preflight()


def test_preflight_checks_every_server(start: Any) -> None:
    good, bad = start(), start()
    bad.kill()
    with pytest.raises(ValueError, match=bad.url):
        judge_of(good, bad).preflight()


def test_preflight_lists_the_models(start: Any) -> None:
    with pytest.raises(ValueError, match=r"there is no model 'qwen' .*set model to one of tiny-vlm, other"):
        judge_of(start(), model="qwen").preflight()


def test_the_key_comes_from_the_argument_or_the_environment(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    server.key = "secret"
    monkeypatch.setenv("JUDGE_KEY", "secret")
    for key in ({"api_key": "secret"}, {"api_key_env": "JUDGE_KEY"}):
        judge_of(server, **key).preflight()
    with pytest.raises(ValueError, match=r"wants a key and none was sent .*api_key_env"):
        judge_of(server).preflight()
    with pytest.raises(ValueError, match="the key was refused") as caught:
        judge_of(server, api_key="wrong-one").preflight()
    assert "wrong-one" not in str(caught.value)


# --------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"base_url": []}, "base_url is empty"),
        ({"base_url": "localhost:8000"}, r"'localhost:8000' is no address.*http://localhost:8000/v1"),
        ({"base_url": "http://localhost/v1/chat/completions"}, "without /chat/completions"),
        ({"concurrency": 0}, "concurrency=0: give 1 or more"),
        ({"timeout": 0}, "timeout=0"),
        ({"minimum_mass": 1.5}, "minimum_mass=1.5"),
        ({"retries": -1}, "retries=-1"),
        ({"api_key": "a", "api_key_env": "B"}, "both given"),
        ({"api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chat_server.client(OpenAIJudge, **{"base_url": "http://localhost:8000/v1", "model": "m", **arguments})


def test_bad_input_is_refused(start: Any) -> None:
    judge = judge_of(start())
    with pytest.raises(ValueError, match="one prompt per image"):
        judge.answer(PICTURES[:1], [], [""])
    with pytest.raises(ValueError, match="uint8"):
        judge.answer([PICTURES[0].astype(np.float32)], [ASKED], [""])
