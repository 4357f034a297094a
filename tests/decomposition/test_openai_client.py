"""`OpenAIChat` against a real HTTP server (tests/llm_server.py)."""

from __future__ import annotations

import threading
import time

import pytest

from project.decomposition.base import DecomposerUnavailable
from project.decomposition.llm import LLMDecomposer
from project.decomposition.openai_client import OpenAIChat
from project.decomposition.prompts import decompose_messages
from project.judges.openai.server import Server
from project.shapes.decomposer import ShapesDecomposer
from tests.helpers import chat_server

PROMPT = "a red circle left of a blue square"


def chat(server, **arguments):
    settings = {"model": "tiny-llm", "probe_seconds": 0.05, **arguments}
    return chat_server.client(OpenAIChat, server.url, **settings)


def test_it_decomposes_as_the_rules_do(start):
    server = start()
    model = chat(server, extra_body={"top_k": 3}, max_tokens=50)
    found = LLMDecomposer(model).decompose(PROMPT)
    assert found == ShapesDecomposer().decompose(PROMPT)
    assert [stage for stage, _, _ in server.requests] == ["decompose", "validate", "quality"]
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"], body["top_k"]) == (
        "tiny-llm",
        0.0,
        0,
        50,
        3,
    )
    model.chat(decompose_messages(PROMPT), attempt=2)
    assert (server.bodies[-1]["temperature"], server.bodies[-1]["seed"]) == (0.7, 2)
    assert model.name == "openai:tiny-llm"


def test_passing_failures_are_retried_and_lasting_ones_say_nothing_of_the_prompt(start):
    faults = {0: (500, {}), 1: (200, {"no": "completion"})}
    server = start(mischief=lambda stage, prompt, attempt: faults.pop(len(server.requests) - 1, None))
    assert chat(server).chat(decompose_messages(PROMPT))
    assert len(server.requests) == 3
    server.mischief = lambda *_: (429, {"error": {"message": "slow down"}})
    with pytest.raises(DecomposerUnavailable, match="rate_limit: 429: slow down") as caught:
        chat(server, retries=1).chat(decompose_messages(PROMPT))
    assert not caught.value.for_good
    server.mischief = lambda *_: (400, {"error": {"message": "prompt is too long"}})
    with pytest.raises(ValueError, match="does not take the request: 400: prompt is too long"):
        chat(server).chat(decompose_messages(PROMPT))


def test_servers_that_are_away_end_the_work_for_good(start):
    server = start()
    model = chat(server, patience=0.2, breaker_failures=2)
    server.kill()
    with pytest.raises(DecomposerUnavailable, match="no language model has answered") as caught:
        model.chat(decompose_messages(PROMPT))
    assert caught.value.for_good


def test_close_ends_the_wait(start):
    server = start(mischief=lambda *_: (429, {}))
    model = chat(server, retries=10**6)
    threading.Timer(0.2, model.close).start()
    begun = time.monotonic()
    with pytest.raises(DecomposerUnavailable, match="given up"):
        model.chat(decompose_messages(PROMPT))
    assert time.monotonic() - begun < 5


def test_preflight_says_what_to_do(start):
    server = start()
    chat(server).preflight()
    with pytest.raises(ValueError, match=r"there is no model 'other' .*set model to one of tiny-llm"):
        chat(server, model="other").preflight()
    server.key = "secret"
    with pytest.raises(ValueError, match=r"wants a key and none was sent .*api_key_env"):
        chat(server).preflight()
    chat(server, api_key="secret").preflight()
    server.kill()
    with pytest.raises(ValueError, match="nothing answers there"):
        chat(server).preflight()


def test_bad_settings_are_refused(monkeypatch):
    for wrong in ({"max_tokens": 0}, {"timeout": 0.0}, {"temperature": -1.0}, {"retries": -1}, {"base_url": "x"}):
        with pytest.raises(ValueError, match=r"give"):
            chat_server.client(OpenAIChat, **{"base_url": "http://localhost:1/v1", **wrong})
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValueError, match="NO_SUCH_KEY is not set"):
        OpenAIChat(Server("http://localhost:1/v1", "m", api_key_env="NO_SUCH_KEY"))
