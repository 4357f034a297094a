"""Means of outcomes, per set and kind of prompts: what benchmarks that weigh kinds evenly are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from project.benchmarks.base import Outcome


class SetKindMeans(Metric):
    """Sums the measures of outcomes with a "set" and a "kind"; a subclass makes figures of `mean_SMK`.

    Shape suffixes: S sets, M measures, K kinds.
    """

    total_SMK: Tensor
    count_SMK: Tensor

    def __init__(self, sets: Sequence[str], measures: Sequence[str], kinds: Sequence[str]) -> None:
        super().__init__()
        self.sets, self.measures, self.kinds = tuple(sets), tuple(measures), tuple(kinds)
        shape = (len(sets), len(measures), len(kinds))
        self.add_state("total_SMK", default=torch.zeros(shape), dist_reduce_fx="sum")
        self.add_state("count_SMK", default=torch.zeros(shape), dist_reduce_fx="sum")

    def update(self, outcome: Outcome) -> None:
        """Adds one prompt; a measure that is None does not count."""
        place, kind = self.sets.index(outcome["set"]), self.kinds.index(outcome["kind"])
        for m, measure in enumerate(self.measures):
            if outcome[measure] is not None:
                self.total_SMK[place, m, kind] += outcome[measure]
                self.count_SMK[place, m, kind] += 1

    def mean_SMK(self) -> Tensor:
        """[S, M, K] on the CPU; NaN where nothing was measured."""
        return (self.total_SMK / self.count_SMK).cpu()

    def by_set(self, mean_SMK: Tensor) -> dict[str, dict[str, float]]:
        """Measure -> set -> mean, kinds weighed evenly; without what was not measured."""
        return {
            measure: {name: float(v) for name, v in zip(self.sets, column, strict=True) if not torch.isnan(v)}
            for measure, column in zip(self.measures, mean_SMK.nanmean(-1).T, strict=True)
        }
