"""Replies in the shapes that servers give them, and what is done about each."""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from project.core.metrics import values
from project.core.reasoning import split_reasoning
from project.decomposition.llm import LLMDecomposer
from project.decomposition.openai_client import OpenAIChat
from project.judges.base import JudgeUnavailable
from project.judges.openai.failures import Failure
from project.judges.openai.judge import OpenAIJudge
from project.judges.openai.yes_no_model import first_token_confidence, read_reply, read_with_log_probs
from project.trajectory import Question
from tests.helpers import chat_server

FILL = [(f"w{n}", -20.0 - n) for n in range(18)]
YES = ("Yes", math.log(0.9), [("Yes", math.log(0.9)), ("No", math.log(0.1)), *FILL])
WRITTEN = ("ĠYes", math.log(0.9), [("ĠYes", math.log(0.9)), ("ĠNo", math.log(0.1)), *FILL])
"""As a tokenizer writes it."""
NO = ("No", -0.2, [("No", -0.2), ("Yes", -2.0), *FILL])


def word(text: str) -> tuple[str, float, list[tuple[str, Any]]]:
    return text, -0.1, [(text, -0.1), *FILL]


def reply(tokens: Any, content: Any, **message: Any) -> dict[str, Any]:
    """A chat completion of (token, log-probability, alternatives)."""
    listed = [
        {"token": t, "logprob": p, "top_logprobs": [{"token": u, "logprob": q} for u, q in others]}
        for t, p, others in tokens
    ]
    return {
        "choices": [{"message": {"role": "assistant", "content": content, **message}, "logprobs": {"content": listed}}]
    }


def confidence(completion: dict[str, Any]) -> float | None:
    return first_token_confidence(read_reply(completion).alternatives, 0.01)


def judge_of(server: Any, **changes: Any) -> OpenAIJudge:
    return chat_server.client(OpenAIJudge, server.url, **{"image_size": 16, "probe_seconds": 0.05, **changes})


def ask(judge: OpenAIJudge, questions: int = 4) -> list[float | None]:
    asked = [Question(text=f"Is it {n}?") for n in range(questions)]
    return judge.answer([np.zeros((8, 8, 3), np.uint8)], [asked], [""])[0]


# --------------------------------------------------------------------- reasoning


@pytest.mark.parametrize(
    "completion",
    [
        reply([word("<think>"), NO, word(","), word("</think>"), YES], "Yes", reasoning_content="No,"),
        reply([NO, word(","), word("</think>"), YES], "Yes", reasoning_content="No,"),
        reply([NO, word(","), word("</"), word("think"), word(">\n\n"), YES], "Yes", reasoning="No,"),
        reply([word("[THINK]"), NO, word("[/THINK]"), word("\n"), YES], "Yes"),
        reply([NO, word("</think>"), YES], "No</think>Yes"),
        # The marks are special tokens that the server leaves out.
        reply([NO, word(","), YES], "Yes", reasoning_content="No,"),
        # Log-probabilities of the answer alone.
        reply([YES], "Yes", reasoning_content="No,"),
        reply([word("\n"), YES], "\nYes"),
        reply([YES, word("."), word("<|im_end|>")], "Yes."),
        # As the tokenizer writes them: the text cannot be found, but the mark can.
        reply([word("Ġhm"), word("</think>"), word("Ċ"), WRITTEN, word("Ġ!")], "Yes !", reasoning_content="hm"),
        reply([word("**"), YES, word("**")], "**Yes**"),
        reply([YES], [{"type": "text", "text": "Yes"}]),
        reply([YES], [{"type": "thinking", "thinking": [{"type": "text", "text": "No"}]}, "Yes"]),
    ],
)  # fmt: skip
def test_the_answer_is_the_token_behind_the_reasoning(completion: dict[str, Any]) -> None:
    assert confidence(completion) == pytest.approx(0.9)
    assert read_reply(completion).hard_answer == 1.0


@pytest.mark.parametrize(
    "completion",
    [
        reply([word("<think>")], "", reasoning_content=""),
        reply([word("<think>"), NO], "<think>No"),
        reply([NO], None, reasoning_content="No"),
        reply([NO], [{"type": "thinking", "thinking": [{"type": "text", "text": "No"}]}]),
    ],
)
def test_reasoning_without_an_end_is_no_answer(completion: dict[str, Any], start: Any) -> None:
    """Its first token may well say no."""
    found = read_with_log_probs(completion)
    assert found.unfinished and not found.alternatives and found.hard_answer is None
    server = start(script=lambda n, body: (200, completion))
    for fallback in (False, True):
        judge = judge_of(server, text_fallback=fallback)
        assert ask(judge) == [None] * 4 and values(judge.metrics())["judge/undecided"] == 4
        with pytest.raises(ValueError, match=r"no answer within 1 tokens.*enable_thinking: false.*max_tokens"):
            judge.preflight()


def test_split_reasoning() -> None:
    assert split_reasoning("<think>a</think>b") == split_reasoning("a</think>b") == split_reasoning("b") == "b"
    assert split_reasoning("<think>a</think>b</think>c") == "c"
    assert split_reasoning("<think>a") is split_reasoning("<think>a</think><think>b") is None
    assert split_reasoning(' {"a": "<think>"}') == ' {"a": "<think>"}', "a word of the answer"


def test_a_judge_may_be_left_to_reason(start: Any) -> None:
    server = start()
    ask(judge := judge_of(server, max_tokens=512))
    assert server.bodies[0]["max_tokens"] == 512
    assert judge.name != judge_of(server).name


# --------------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize("missing", [None, -9999.0, -math.inf])
def test_null_is_minus_infinity(missing: float | None) -> None:
    one = reply([("Yes", YES[1], [*YES[2][:-1], ("z", missing)])], "Yes")
    guided = reply([("Yes", YES[1], [*YES[2][:2], *((token, missing) for token, _ in FILL)])], "Yes")
    alone = reply([("Yes", 0.0, [("Yes", 0.0), ("No", missing)])], "Yes")
    assert confidence(one) == confidence(guided) == pytest.approx(0.9)
    assert confidence(alone) == 1.0
    assert confidence(reply([("Yes", missing, [("The", -0.1), ("Yes", missing)])], "Yes")) is None


def test_tokens_by_number_are_read_from_their_bytes_or_named(start: Any) -> None:
    completion = reply([("token_id:9454", -0.1, [("token_id:9454", -0.1), ("token_id:2753", -2.4), *FILL])], "Yes")
    server = start(script=lambda n, body: (200, completion))
    with pytest.raises(ValueError, match="without --return-tokens-as-token-ids"):
        judge_of(server).preflight()
    token = completion["choices"][0]["logprobs"]["content"][0]
    for one, text in ((token, "Yes"), *zip(token["top_logprobs"], ("Yes", " no"), strict=False)):
        one["bytes"] = list(text.encode())
    judge_of(server).preflight()
    expected = math.exp(-0.1) / (math.exp(-0.1) + math.exp(-2.4))
    assert ask(judge_of(server)) == pytest.approx([expected] * 4)


# --------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "body",
    [
        {"id": None, "choices": None, "error": {"message": "Provider returned error", "code": 429}},
        {"error": {"message": "slow down", "code": "429"}},
        {"error": {"message": "slow down", "type": "rate_limit_error", "code": None}},
        {"choices": [{"error": {"message": "slow down", "code": 429}, "finish_reason": "error"}]},
    ],
)
def test_a_rate_limit_inside_an_answer_is_one(body: dict[str, Any], start: Any) -> None:
    judge = judge_of(start(script=lambda n, _: (200, body) if n % 2 == 0 else None), breaker_failures=1, concurrency=1)
    assert None not in ask(judge)
    metrics = values(judge.metrics())
    assert metrics["judge/failures/rate_limit"] == 4 and metrics["judge/failures/malformed"] == 0


@pytest.mark.parametrize(
    "body, kind",
    [
        ({"error": {"message": "no", "code": 401}}, "not_served"),
        ({"error": {"message": "CUDA error", "code": 502}}, "server_error"),
        ({"error": "CUDA error"}, "server_error"),
        ({"error": {"message": "too long", "code": 400}}, "rejected"),
        ({"error": None, "choices": []}, "malformed"),
    ],
)
def test_other_errors_inside_an_answer(body: dict[str, Any], kind: str, start: Any) -> None:
    judge = judge_of(start(script=lambda n, _: (200, body) if n == 0 else None))
    ask(judge)
    assert values(judge.metrics())[f"judge/failures/{kind}"] == 1


LAST_WORDS = {
    "key": ((401, {"error": {"message": "key expired"}}), "that holds the key"),
    "credit": ((402, {"error": {"message": "Insufficient Balance"}}), "top it up, or use another key or server"),
    "quota": (
        (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
        "top it up, or use another key or server",
    ),
    "broken": ((500, {"error": {"message": "CUDA error"}}), "see the server's log"),
    "model": ((404, {"error": {"message": "The model `tiny-vlm` does not exist."}}), "see the server's log"),
}


@pytest.mark.parametrize("case", LAST_WORDS)
def test_the_last_word_about_a_lost_judge_is_what_helps(case: str, start: Any) -> None:
    fault, remedy = LAST_WORDS[case]
    judge = judge_of(start(script=lambda n, _: None if n < 2 else fault), patience=0.2, breaker_failures=2)
    with pytest.raises(JudgeUnavailable) as caught:
        ask(judge, 8)
    assert str(caught.value).endswith(remedy) and fault[1]["error"]["message"] in str(caught.value)
    assert "start the server again" not in str(caught.value)


@pytest.mark.parametrize("kind", [OpenAIJudge, OpenAIChat])
def test_another_name_of_max_tokens_is_the_remedy(kind: Any, start: Any) -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."

    def script(n: int, body: dict[str, Any]) -> Any:
        return (400, {"error": {"message": said}}) if "max_tokens" in body else None

    server = start(script=script)
    client = chat_server.client(kind, server.url)
    most = 1 if kind is OpenAIJudge else 4096
    with pytest.raises(ValueError) as caught:
        client.preflight()
    remedy = f"{{max_tokens: null, max_completion_tokens: {most}}}"
    assert f"set extra_body to {remedy}" in str(caught.value)
    extra = {"max_tokens": None, "max_completion_tokens": most}
    chat_server.client(kind, server.url, extra_body=extra).preflight()
    assert server.bodies[-1]["max_completion_tokens"] == most


def test_a_field_that_is_not_taken_is_the_remedy(start: Any) -> None:
    said = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported."

    def script(n: int, body: dict[str, Any]) -> Any:
        return (400, {"error": {"message": said}}) if "temperature" in body else None

    server = start(script=script)
    with pytest.raises(ValueError, match=r"set extra_body to \{temperature: null\}"):
        judge_of(server).preflight()
    judge_of(server, extra_body={"temperature": None}).preflight()


# --------------------------------------------------------------------- waiting


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("name, value", [("Retry-After", "0.7"), ("Retry-After", "date"), ("Retry-After-Ms", "700")])
def test_what_a_server_asks_to_wait_is_waited(status: int, name: str, value: str, start: Any) -> None:
    """Longer than the bound of our own waits, in every form."""

    def script(n: int, body: Any) -> Any:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=1.7), usegmt=True)
        server.headers = {name: date if value == "date" else value} if n == 0 else {}
        return (status, {"error": {"message": "slow down"}}) if n == 0 else None

    server = start(script=script)
    began = time.monotonic()
    assert None not in ask(judge_of(server), 1)
    assert 0.6 < time.monotonic() - began < 5


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "-5", ""])
def test_nonsense_is_not_waited_for(value: str, start: Any) -> None:
    server = start(script=lambda n, body: (429, {}) if n == 0 else None)
    server.headers = {"Retry-After": value}
    began = time.monotonic()
    assert None not in ask(judge_of(server), 1) and time.monotonic() - began < 2


def test_the_patience_bounds_what_a_server_asks_to_wait(start: Any) -> None:
    server = start(script=lambda n, body: (429, {}) if n == 0 else None)
    server.headers = {"Retry-After": "86400"}
    assert None not in ask(judge_of(server, patience=0.3), 1)


def test_a_long_wait_ends_when_the_run_is_to_end(start: Any) -> None:
    server = start(script=lambda n, body: (429, {"error": {"message": "slow down"}}))
    server.headers = {"Retry-After": "300"}
    judge = judge_of(server)
    threading.Timer(0.3, judge.stop_waiting).start()
    began = time.monotonic()
    with pytest.raises(JudgeUnavailable, match=r"asks to wait 300 s \(429: slow down\)"):
        ask(judge)
    assert time.monotonic() - began < 5


# --------------------------------------------------------------------- decomposers

DRAFT = '{"questions": [{"id": 1, "question": "Is there a DRAFT?", "tag": "Existence", "depends_on": []}]}'
GOOD = DRAFT.replace("a DRAFT", "a red circle")


def decomposed(start: Any, content: Any, finish_reason: str = "stop") -> tuple[Question, ...]:
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    server = start(script=lambda n, body: (200, {"choices": [choice]}))
    client = chat_server.client(OpenAIChat, server.url)
    return LLMDecomposer(client, again=1, validate=False, quality=False).decompose("a red circle")


@pytest.mark.parametrize(
    "content, finish_reason, fault",
    [
        (f"<think>Let me draft. {DRAFT} Hmm, no: the prompt", "length", "cut off by its length"),
        (f"Let me draft. {DRAFT} Hmm, no: the prompt", "length", "cut off by its length"),
        (f"<think>Let me draft. {DRAFT} Hmm, no", "stop", "reasoning that does not end"),
        (f"<think>a</think> <think>{DRAFT}", "stop", "reasoning that does not end"),
        ([{"type": "thinking", "thinking": DRAFT}], "stop", "there is no JSON object"),
    ],
)
def test_a_draft_is_no_answer(content: Any, finish_reason: str, fault: str, start: Any) -> None:
    with pytest.raises(ValueError, match=rf"no valid questions in 2 attempts.*{fault}"):
        decomposed(start, content, finish_reason)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]}, {"type": "text", "text": GOOD}],
        [{"type": "text", "text": GOOD[:20]}, {"type": "text", "text": GOOD[20:]}],
        f"<think>{DRAFT}</think>{GOOD}",
        f"{DRAFT}</think>```json\n{GOOD}\n```",
    ],
)
def test_the_answer_is_found_whatever_its_shape(content: Any, start: Any) -> None:
    assert [question.text for question in decomposed(start, content)] == ["Is there a red circle?"]


def test_what_is_no_completion_is_malformed() -> None:
    for found in ({}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {}}]}, [], "x", None):
        with pytest.raises(Failure) as caught:
            read_reply(found)
        assert caught.value.kind == "malformed"
