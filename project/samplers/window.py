"""Which evaluations of a picture are stochastic and trained; elsewhere pictures follow the ODE."""

from __future__ import annotations

import torch

from project.core.randomness import keyed_generator


class Window:
    """A contiguous window of evaluations, at a random place that is drawn once per update.

    A window that moves by another rule is a subclass with a `place` of its own.

    Args:
        size: evaluations in the window; if None, the whole range.
        range: (lo, hi): windows lie within the evaluations lo .. hi - 1, and begin at any of lo .. hi - size with equal
            probability; if None, all evaluations that can be stochastic.
    """

    def __init__(self, size: int | None = None, range: tuple[int, int] | None = None) -> None:
        self.size = size
        self.range = range

    def steps(self, stochastic: int, seed: int, update: int) -> range:
        """The evaluations of an update, equal on all ranks.

        Args:
            stochastic: evaluations, counted from the first, that can be stochastic.
            seed: seed of the run.
            update: number of the update.

        Raises:
            ValueError: if the window does not fit.
        """
        lo, hi, size = self.fitted(stochastic)
        start = self.place(lo, hi - size, seed, update)
        return range(start, start + size)

    def place(self, first: int, last: int, seed: int, update: int) -> int:
        """The first evaluation of the window, from `first` to `last`."""
        generator = keyed_generator(seed, update, "sde window")
        return first + int(torch.randint(last - first + 1, (), generator=generator))

    def fitted(self, stochastic: int) -> tuple[int, int, int]:
        """(lo, hi, size) among `stochastic` evaluations. Raises ValueError if the window does not fit."""
        lo, hi = (0, stochastic) if self.range is None else self.range
        if not 0 <= lo < hi <= stochastic:
            raise ValueError(
                f"window.range=({lo}, {hi}) does not fit: the schedule has {stochastic} evaluations that can be "
                f"stochastic, numbered from 0; take 0 <= lo < hi <= {stochastic} or a larger num_steps"
            )
        size = hi - lo if self.size is None else self.size
        if not 1 <= size <= hi - lo:
            raise ValueError(
                f"window.size={size} does not fit into window.range=({lo}, {hi}), which holds {hi - lo} evaluations: "
                f"take a size from 1 to {hi - lo}, or a wider range or a larger num_steps"
            )
        return lo, hi, size
