"""Reference data shared by the tests."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fixture",
        default="../shared/fixtures/bagel_tiny",
        help="directory of BAGEL reference data; a relative path starts at the repository root",
    )
    parser.addoption(
        "--server-python",
        default=sys.executable,
        help="interpreter that has llama-cpp-python[server], for `-m server`",
    )


class ReferenceData:
    """A tiny BAGEL checkpoint with upstream's own outputs: `cases` describes them, `tensor` reads one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.expected: Mapping[str, Any] = json.loads((directory / "expected.json").read_text())
        self.cases: Mapping[str, Any] = self.expected["cases"]
        self._tensors = safe_open(directory / "expected.safetensors", "pt")

    def tensor(self, name: str) -> Tensor:
        return self._tensors.get_tensor(name)


@pytest.fixture(scope="session")
def bagel_fixture(request: pytest.FixtureRequest) -> ReferenceData:
    directory = (ROOT / request.config.getoption("--fixture")).resolve()
    if not (directory / "expected.json").is_file():
        pytest.skip(f"no reference data at {directory}: pass --fixture DIR")
    return ReferenceData(directory)


def assert_parity(actual: Tensor, expected: Tensor) -> None:
    """max|a - b| <= 2e-4 * max(1, max|b|), the tolerance of the reference data."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max().item()
    assert error <= 2e-4 * max(1.0, expected.abs().max().item()), f"differs from the reference by {error:.2e}"


@pytest.fixture(scope="session")
def parity() -> Any:
    return assert_parity


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def beside(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def chat_server() -> ModuleType:
    """`tests/chat_server.py`: an OpenAI-compatible server for tests."""
    return beside("chat_server")


@pytest.fixture(scope="session")
def tiny_run() -> ModuleType:
    """`tests/tiny_run.py`: a whole `fit` of seconds."""
    return beside("tiny_run")


@pytest.fixture(scope="session")
def tiny_llava() -> ModuleType:
    """`tests/tiny_llava.py`: a tiny vision-language model for transformers and for llama.cpp."""
    pytest.importorskip("gguf", reason="pip install gguf")
    return beside("tiny_llava")


@pytest.fixture(scope="session")
def llm_server() -> ModuleType:
    """`tests/llm_server.py`: a scripted OpenAI-compatible language model for tests."""
    return beside("llm_server")
