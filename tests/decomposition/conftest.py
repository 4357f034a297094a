"""The scripted language model of tests/llm_server.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers import llm_server


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts servers, which end with the test; waiting between attempts is short."""
    monkeypatch.setattr("project.judges.openai.servers.BACKOFF", (0.01, 0.05))
    servers = []

    def started(**arguments: Any) -> Any:
        servers.append(llm_server.LLMServer(**arguments).start())
        return servers[-1]

    yield started
    for server in servers:
        server.kill()
