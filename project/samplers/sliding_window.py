"""A window that moves from early to late evaluations as training goes on (MixGRPO, arXiv 2507.21802)."""

from __future__ import annotations

from typing import Literal

from project.samplers.window import Window
from project.trajectory import SampleKey


class SlidingWindow(Window):
    """Begins at the first evaluation of its range and moves on after some updates, the same for all prompts.

    Args:
        every: updates between two moves.
        stride: evaluations that a move goes on by; the last place is at the end of the range.
        after_last: where it goes from the last place: `first` = back to the first one, `last` = it stays.

    Raises:
        ValueError: if `every` or `stride` is below 1, or `after_last` unknown.
    """

    def __init__(
        self,
        size: int | None = None,
        range: tuple[int, int] | None = None,
        every: int = 25,
        stride: int = 1,
        after_last: Literal["first", "last"] = "first",
    ) -> None:
        super().__init__(size, range, drawn="update")
        if every < 1 or stride < 1:
            raise ValueError(f"window.every={every}, window.stride={stride}: give at least 1")
        if after_last not in ("first", "last"):
            raise ValueError(f"window.after_last={after_last!r} is unknown: choose first or last")
        self.every = every
        self.stride = stride
        self.after_last = after_last

    def place(self, first: int, last: int, key: SampleKey) -> int:
        moves = key.update // self.every
        places = -(-(last - first) // self.stride) + 1
        number = moves % places if self.after_last == "first" else moves
        return min(first + number * self.stride, last)
