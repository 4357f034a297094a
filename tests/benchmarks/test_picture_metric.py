"""The figures of pictures that several ranks judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from project.benchmarks import picture_metric
from project.benchmarks.picture_metric import PictureMetric
from project.core.growing_rows import Row


def mean(rows: Sequence[Row]) -> dict[str, Any]:
    return {"overall": sum(row["worth"] for row in rows) / len(rows)}


def row(item: str, sample: int, worth: float) -> Row:
    return {"id": item, "sample": sample, "worth": worth}


def test_rows_of_all_ranks_are_scored_and_each_picture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that an earlier run left are known to every rank."""
    of_another_rank = [row("a", 0, 1.0), row("b", 1, 0.0)]
    monkeypatch.setattr(picture_metric, "gather", lambda rows: [*rows, *of_another_rank])
    metric = PictureMetric(mean)
    for one in (row("a", 0, 1.0), row("b", 0, 1.0)):
        metric.update(one)
    assert metric.compute() == {"overall": pytest.approx(2 / 3)}
    assert [(one["id"], one["sample"]) for one in metric.rows] == [("a", 0), ("b", 0), ("b", 1)]


def test_it_forgets() -> None:
    metric = PictureMetric(mean)
    metric.update(row("a", 0, 1.0))
    metric.reset()
    metric.update(row("b", 0, 0.0))
    assert metric.compute() == {"overall": 0.0}
