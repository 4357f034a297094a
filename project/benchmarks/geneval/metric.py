"""GenEval's figures over all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from project.benchmarks.geneval.items import Item
from project.benchmarks.geneval.summary import SAMPLES, GenEvalScores, PictureRow, picture_name, score
from project.benchmarks.scoring import MODES, Mode


class GenEvalMetric(Metric):
    """Collects verdicts on pictures and gives the figures of both modes.

    Shape suffixes: I items, S samples.

    Args:
        items: of the whole benchmark, in its order.
        samples: pictures that each item should have.

    Raises:
        ValueError: without items, and for fewer than one sample.
    """

    seen_IS: Tensor
    correct_IS: Tensor

    def __init__(self, items: Sequence[Item], samples: int = SAMPLES) -> None:
        super().__init__()
        if not items or samples < 1:
            raise ValueError(f"{len(items)} items with {samples} pictures each: give at least one of both")
        self.items, self.samples = tuple(items), samples
        self._place = {item.id: n for n, item in enumerate(items)}
        shape = (len(items), samples)
        for name in ("seen_IS", "correct_IS"):
            self.add_state(name, default=torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outcome: Mapping[str, Any]) -> None:
        """Adds a picture: the keys are `id` (of its item), `sample` and `correct`.

        Raises ValueError for a picture that the benchmark does not have.
        """
        place, sample = self._place.get(outcome["id"]), outcome["sample"]
        if place is None or not 0 <= sample < self.samples:
            raise ValueError(f"{picture_name(outcome['id'], sample)} is no picture of this benchmark")
        self.seen_IS[place, sample] += 1
        self.correct_IS[place, sample] += int(outcome["correct"])

    def scores(self, mode: Mode) -> GenEvalScores:
        """The figures of one mode, of what this metric holds. Raises as `summary.score`."""
        seen_IS, correct_IS = self.seen_IS.tolist(), self.correct_IS.tolist()
        rows = [
            PictureRow(item=item.id, sample=sample, tag=item.tag, correct=bool(correct_IS[n][sample]))
            for n, item in enumerate(self.items)
            for sample in range(self.samples)
            for _ in range(seen_IS[n][sample])
        ]
        return score(rows, self.items, mode, self.samples)

    def compute(self) -> dict[str, Any]:
        """`official` and `strict`, each with `overall`, `images`, `prompts` and `tag/TAG`; `coverage`, the share of
        pictures scored. A figure that `strict` does not give is None."""
        both = {mode: self.scores(mode) for mode in MODES}
        return {**{mode: _figures(scores) for mode, scores in both.items()}, "coverage": both["strict"].coverage.share}


def _figures(scores: GenEvalScores) -> dict[str, Any]:
    shares = {"images": scores.images, "prompts": scores.prompts}
    return {
        "overall": scores.overall,
        **{name: share.value if share else None for name, share in shares.items()},
        "tag": {tag: share.value if share else None for tag, share in scores.tags.items()},
    }
