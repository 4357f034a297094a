"""The scripted language model of tests/llm_server.py."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def llm_server() -> ModuleType:
    name = "llm_server"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def start(llm_server: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts servers, which end with the test; waiting between attempts is short."""
    monkeypatch.setattr("project.chat_servers.BACKOFF", (0.01, 0.05))
    servers = []

    def started(**arguments: Any) -> Any:
        servers.append(llm_server.LLMServer(**arguments).start())
        return servers[-1]

    yield started
    for server in servers:
        server.kill()
