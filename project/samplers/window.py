"""Which evaluations of a picture are stochastic and trained; elsewhere pictures follow the ODE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from project.core.randomness import keyed_generator
from project.trajectory import SampleKey


class Window:
    """A contiguous window of evaluations, at a random place.

    A window that moves by another rule is a subclass with a `place` of its own. One whose evaluations are not
    contiguous has a `steps`, `places` and `fitted` of its own.

    Args:
        size: evaluations in the window; if None, the whole range.
        range: (lo, hi): windows lie within the evaluations lo .. hi - 1, and begin at any of lo .. hi - size with equal
            probability; if None, all evaluations that can be stochastic.
        drawn: where the window lies is drawn once for each `prompt` of an update, so that an update trains many places
            (published), or once for the whole `update`. The samples of a group always share it.
    """

    def __init__(
        self,
        size: int | None = None,
        range: tuple[int, int] | None = None,
        drawn: Literal["prompt", "update"] = "prompt",
    ) -> None:
        if drawn not in ("prompt", "update"):
            raise ValueError(f"window.drawn={drawn!r} is unknown: choose prompt or update")
        self.size = size
        self.range = range
        self.drawn = drawn

    def steps(self, stochastic: int, key: SampleKey) -> Sequence[int]:
        """The evaluations of a sample, rising, equal for all samples of a group.

        Args:
            stochastic: evaluations, counted from the first, that can be stochastic.
            key: of the sample.

        Raises:
            ValueError: if the window does not fit.
        """
        lo, hi, size = self.fitted(stochastic)
        start = self.place(lo, hi - size, key)
        return range(start, start + size)

    def places(self, stochastic: int) -> Sequence[Sequence[int]]:
        """All that `steps` may give. Raises ValueError if the window does not fit."""
        lo, hi, size = self.fitted(stochastic)
        return [range(start, start + size) for start in range(lo, hi - size + 1)]

    def place(self, first: int, last: int, key: SampleKey) -> int:
        """The first evaluation of the window, from `first` to `last`."""
        of_prompt = (key.prompt, key.occurrence) if self.drawn == "prompt" else ()
        generator = keyed_generator(key.seed, key.update, *of_prompt, "sde window")
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
