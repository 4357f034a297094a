"""A fixed list of evaluations that are random and trained."""

from __future__ import annotations

from collections.abc import Sequence

from project.samplers.window import Window
from project.trajectory import SampleKey


class FixedSteps(Window):
    """The same evaluations in every update; they need not be neighbours.

    Args:
        numbers: of the evaluations, counted from 0.

    Raises:
        ValueError: if there are none, or one stands twice or out of order.
    """

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(drawn="update")
        if not numbers or numbers != sorted(set(numbers)):
            raise ValueError(f"window.numbers={numbers}: give at least one evaluation, each once, in rising order")
        self.numbers = tuple(numbers)

    def steps(self, stochastic: int, key: SampleKey) -> Sequence[int]:
        self.fitted(stochastic)
        return self.numbers

    def places(self, stochastic: int) -> Sequence[Sequence[int]]:
        self.fitted(stochastic)
        return [self.numbers]

    def fitted(self, stochastic: int) -> tuple[int, int, int]:
        if self.numbers[0] < 0 or self.numbers[-1] >= stochastic:
            raise ValueError(
                f"window.numbers={list(self.numbers)} does not fit: the schedule has {stochastic} evaluations that can "
                f"be stochastic, numbered from 0 to {stochastic - 1}; take these or a larger num_steps"
            )
        return self.numbers[0], self.numbers[-1] + 1, len(self.numbers)
