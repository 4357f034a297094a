"""What the micro-batches of an update have to log, added up over them and over the ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from project.core.metrics import Mean
from project.core.ranks import Ranks
from project.objectives.base import LossOutputs


class Tally:
    """Means and maxima of an update."""

    def __init__(self) -> None:
        self._means: dict[str, Mean[Tensor]] = {}
        self._maxima: dict[str, Tensor] = {}

    def add(self, outputs: LossOutputs, prefix: str, weight: float) -> None:
        """Of one backward pass.

        Args:
            prefix: of the names of its means.
            weight: of its micro-batch: 0 = idle.
        """
        for name, mean in outputs.metrics.items():
            name, mean = f"{prefix}{name}", mean.times(weight)
            self._means[name] = self._means[name] + mean if name in self._means else mean
        for name, value in outputs.maxima.items():
            value = value.detach().cpu() * weight
            self._maxima[name] = torch.maximum(self._maxima[name], value) if name in self._maxima else value

    def over(self, ranks: Ranks) -> tuple[dict[str, Mean[Tensor]], dict[str, Tensor]]:
        """Means and maxima over all ranks. A collective call."""
        everybody = ranks.gather(({name: mean.cpu() for name, mean in self._means.items()}, self._maxima))
        whole: dict[str, Mean[Tensor]] = {}
        largest: dict[str, Tensor] = {}
        for means, found in everybody:
            whole |= {name: whole[name] + mean if name in whole else mean for name, mean in means.items()}
            largest |= {name: torch.maximum(largest.get(name, value), value) for name, value in found.items()}
        return whole, largest
