"""The processes that train together, and what they tell each other beside gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """All processes of a run, seen from one of them; a single process by default.

    Every method but `share` is a collective call: all ranks make it, in the same order.

    Attributes:
        rank: number of this process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def share(self, number: int) -> range:
        """This rank's places among `number` things that are dealt in order. Shares differ by one at most."""
        return range(number * self.rank // self.size, number * (self.rank + 1) // self.size)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order. A value of another process is a copy made by pickle."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def sum(self, tensor: Tensor) -> Tensor:
        """Of the tensors of all ranks, on the CPU."""
        return tensor if self.size == 1 else torch.stack(self.gather(tensor.detach().cpu())).sum(0)

    def any(self, true: bool) -> bool:
        """Whether it is true on any rank."""
        return any(self.gather(true))

    def whole(self, *parts: Tensor | None) -> list[Tensor | None]:
        """Tensors of this rank's samples [n, ...] -> those of all samples [N, ...] on the CPU, in one call.

        A part that is None has to be None on every rank, and stays None.
        """
        gathered = self.gather([None if part is None else part.detach().cpu() for part in parts])
        return [None if column[0] is None else torch.cat(column) for column in zip(*gathered, strict=True)]  # type: ignore[arg-type]


ALONE = Ranks()
"""A single process."""
