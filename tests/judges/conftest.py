"""Tiny vision-language models on disk, and judges' servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.helpers import chat_server, tiny_vlms


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl"])
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model."""
    return tiny_vlms.write_tiny_vlm(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., chat_server.ChatServer]]:
    """Starts servers, see `chat_server.starting`."""
    yield from chat_server.starting(monkeypatch)
