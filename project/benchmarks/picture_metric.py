"""`PictureMetric`: the figures of a benchmark of pictures over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torchmetrics import Metric

from project.benchmarks.base import Outcome, Results, gather
from project.core.growing_rows import Row


class PictureMetric(Metric):
    """Collects the rows of judged pictures; `compute` scores those of all ranks, each picture once.

    Rows hold words and lists of any length, so they are no states of fixed size: `compute` gathers them.

    Args:
        score: Makes figures of rows that have `id` and `sample`.
    """

    def __init__(self, score: Callable[[Sequence[Row]], Results]) -> None:
        super().__init__()
        self.score = score
        self.rows: list[Row] = []
        """Of this rank; after `compute` of all ranks."""

    def update(self, row: Outcome) -> None:
        """Adds a picture; one with a reason why it was `not_judged` is left out."""
        if "not_judged" not in row:
            self.rows.append(dict(row))

    def compute(self) -> dict[str, Any]:
        """What `score` makes of the rows of all ranks, in the order of rank and row. A collective call."""
        self.rows = list({(row["id"], row["sample"]): row for row in gather(self.rows)}.values())
        return self.score(self.rows)

    def reset(self) -> None:
        super().reset()
        self.rows = []
