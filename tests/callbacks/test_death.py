"""A process may die at any moment, also while it saves: the same command goes on, to the same weights by hash."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import ranks, tiny_run

WAYS = pytest.mark.parametrize("way", [[], ["beside"]], ids=["in between", "beside training"])


@pytest.mark.slow
@WAYS
def test_twenty_deaths_at_random_moments_change_nothing(tmp_path: Path, way: list[str]) -> None:
    world = tiny_run.write_world(tmp_path)
    (said,) = ranks.run(1, "tests.helpers.mortal_run", str(world), "20", *way, timeout=900)
    assert said.count("killed ") == 20 + 1, said


@pytest.mark.slow
@WAYS
def test_a_death_at_any_moment_of_a_save_changes_nothing(tmp_path: Path, way: list[str]) -> None:
    world = tiny_run.write_world(tmp_path)
    (said,) = ranks.run(1, "tests.helpers.mortal_run", str(world), *way, timeout=600)
    assert "half written" in said and len({line.split()[0] for line in said.splitlines()[-8:]}) == 1, said
