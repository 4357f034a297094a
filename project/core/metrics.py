"""Metrics that say how they are reduced: over micro-batches, over parts of an update, over ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean(Generic[Number]):
    """A mean of what was counted: sum the totals, sum the counts."""

    total: Number
    count: Number

    def __add__(self, other: Mean[Number]) -> Mean[Number]:
        return Mean(total=self.total + other.total, count=self.count + other.count)

    def times(self, weight: float) -> Mean[Number]:
        """The same mean, counted `weight` times."""
        return Mean(total=self.total * weight, count=self.count * weight)

    def cpu(self: Mean[Tensor]) -> Mean[Tensor]:
        """On the CPU, without gradient."""
        return Mean(total=self.total.detach().cpu(), count=self.count.detach().cpu())

    @property
    def value(self) -> Number:
        """total / count; NaN if nothing was counted."""
        if isinstance(self.count, float | int) and not self.count:
            return math.nan
        return self.total / self.count

    @classmethod
    def of(cls, value: Tensor, weight: Tensor) -> Mean[Tensor]:
        """Weighted mean of a tensor, without gradient; entries of weight 0 may hold anything."""
        weight = weight.detach().float()
        return Mean(total=(value.detach().float().where(weight != 0, 0.0) * weight).sum(), count=weight.sum())

    @classmethod
    def over(cls, values: Iterable[float | None]) -> Mean[float]:
        """Mean of the numbers among the values: None and NaN are not counted."""
        known = [float(value) for value in values if value is not None and not math.isnan(value)]
        return Mean(total=sum(known), count=float(len(known)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A counter."""

    value: float

    def __add__(self, other: Sum) -> Sum:
        return Sum(value=self.value + other.value)


Metric = Mean[float] | Sum


def merged(parts: Iterable[Mapping[str, Metric]]) -> dict[str, Metric]:
    """The metrics of all parts (of an update, or of ranks), each name over the parts that have it.

    Raises TypeError if parts disagree on how a metric is reduced.
    """
    found: dict[str, Metric] = {}
    for part in parts:
        for name, metric in part.items():
            found[name] = found[name] + metric if name in found else metric  # type: ignore[operator]
    return found


def values(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """What is logged, by name; a mean of nothing is left out."""
    return {name: metric.value for name, metric in metrics.items() if not math.isnan(metric.value)}
