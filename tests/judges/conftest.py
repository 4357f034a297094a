"""Tiny vision-language models on disk."""

from __future__ import annotations

import pytest

from tests.helpers import tiny_vlms


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl"])
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model."""
    return tiny_vlms.write_tiny_vlm(tmp_path_factory.mktemp(request.param), request.param)
