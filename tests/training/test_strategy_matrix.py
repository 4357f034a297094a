"""Two processes equal one and resume by hash, for every strategy, adapters or all weights, and every task."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import strategy_matrix


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("fsdp2-lora-mixed",), id="one"),
        pytest.param((), id="all", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one_and_resume_by_hash(tmp_path: Path, names: tuple[str, ...]) -> None:
    rows = strategy_matrix.table(tmp_path, names)
    assert rows and all(row.right for row in rows), "\n".join([strategy_matrix.HEAD, *map(str, rows)])
