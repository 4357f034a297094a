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

REFERENCES = (Path("../shared/fixtures/bagel_tiny"), Path("tests/fixtures/bagel_tiny"))
"""Upstream's own outputs, where they are; those of this repository (see the README beside them)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fixture",
        help="directory of BAGEL reference data, from the repository root; default: every one of "
        + " and ".join(map(str, REFERENCES)),
    )
    parser.addoption(
        "--golden",
        default="../shared/golden",
        help="directory of inputs and outputs of the benchmarks' official scorers, from the repository root",
    )
    parser.addoption(
        "--server-python",
        default=sys.executable,
        help="interpreter that has llama-cpp-python[server], for `-m server`",
    )
    parser.addoption(
        "--drawn-by",
        default="data/shapes/umm",
        help="checkpoint whose pictures tests/rewards/test_reward_figures.py scores",
    )


class Cases(dict[str, Any]):
    """Cases by name; asking for one that these data lack skips the test."""

    def __missing__(self, name: str) -> Any:
        pytest.skip(f"these reference data have no case {name}")


class ReferenceData:
    """A tiny BAGEL checkpoint and what it must say: `cases` describes it, `tensor` reads one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.expected: Mapping[str, Any] = json.loads((directory / "expected.json").read_text(encoding="utf-8"))
        self.cases = Cases(self.expected["cases"])
        self._tensors = safe_open(directory / "expected.safetensors", "pt")
        self._names = set(self._tensors.keys())

    def tensor(self, name: str) -> Tensor:
        if name not in self._names:
            pytest.skip(f"these reference data have no tensor {name}")
        return self._tensors.get_tensor(name)


def references(config: pytest.Config) -> list[Path]:
    """Directories of reference data that are there: the one asked for, or all known ones (upstream's own first)."""
    asked = config.getoption("--fixture")
    directories = [(ROOT / directory).resolve() for directory in ([asked] if asked else REFERENCES)]
    return [directory for directory in directories if (directory / "expected.json").is_file()]


@pytest.fixture(scope="session")
def bagel_fixture(request: pytest.FixtureRequest) -> ReferenceData:
    """Those that the test is parametrized with, or the first ones."""
    found = references(request.config)
    if not found:
        pytest.skip(f"no reference data at {request.config.getoption('--fixture')}: pass --fixture DIR")
    return ReferenceData(getattr(request, "param", found[0]))


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
