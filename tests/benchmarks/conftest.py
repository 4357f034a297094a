"""Judges' servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.helpers import chat_server


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., chat_server.ChatServer]]:
    """Starts servers, see `chat_server.starting`."""
    yield from chat_server.starting(monkeypatch)
