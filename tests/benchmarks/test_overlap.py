"""Judging goes on while drawing goes on, and only if it is to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.overlap_cost import evaluate, run, table

SIZE = {"seconds": 0.15, "items": 6, "steps": 4}


def test_requests_are_in_flight_while_drawing_goes_on(tmp_path: Path) -> None:
    beside = evaluate(tmp_path, "beside", overlap=True, **SIZE)
    after = evaluate(tmp_path, "after", overlap=False, **SIZE)
    assert len(beside.requests) == len(after.requests) > 0 and len(beside.drawing) == len(after.drawing) == 3
    first, last = beside.drawing[0][1], beside.drawing[-1][0]
    assert beside.in_flight > 0 and any(first <= began < last for began, _ in beside.requests)
    assert after.in_flight == 0
    assert table([(beside, after)]).splitlines()[2].endswith(f"| 0 of {len(after.requests)} |")


@pytest.mark.slow
def test_overlap_saves_seconds() -> None:
    """The command of the helper, see its table."""
    (pair,) = run(turns=1, seconds=0.3, items=12, steps=11)
    beside, after = pair
    assert beside.seconds < after.seconds and beside.in_flight > len(beside.requests) / 4
