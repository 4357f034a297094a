"""Tiny vision-language models on disk."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny_vlms() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_vlms", Path(__file__).parents[1] / "tiny_vlms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl"])
def vlm(request: pytest.FixtureRequest, tiny_vlms: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model."""
    return tiny_vlms.write_tiny_vlm(tmp_path_factory.mktemp(request.param), request.param)
