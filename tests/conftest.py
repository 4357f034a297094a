"""Reference data shared by the tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tests.helpers import ROOT


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
