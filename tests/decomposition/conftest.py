"""The scripted language model of tests/helpers/llm_server.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.helpers import chat_server, llm_server


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., llm_server.LLMServer]]:
    """Starts servers, see `chat_server.starting`."""
    yield from chat_server.starting(monkeypatch, llm_server.LLMServer)
