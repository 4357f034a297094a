"""What all tasks with a single turn share: the turn is replayed as it was drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

from project.models.base import UnifiedModel
from project.samplers.sampler import Sampler
from project.tasks.base import ChangeGuidance, Task
from project.tasks.parts import ReplayPart
from project.tasks.request import Request
from project.tasks.turn import Turn
from project.trajectory import Replay, Trajectory


class OneTurn(Task):
    """A task whose samples read their prompt's text (and source picture, if they have one) and make one turn.

    Args:
        turn: the turn that every sample makes.
    """

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    @property
    def turns(self) -> Sequence[Turn]:
        return (self.turn,)

    def with_guidance(self, change: ChangeGuidance) -> Self:
        return self._changed(turn=self.turn.with_guidance(change))

    def greedy(self) -> Self:
        return self._changed(turn=self.turn.greedy())

    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        return self.turn.replay(
            model, _requests(trajectories), trajectories, sampler, context_gradient=context_gradient
        )

    def replay_parts(
        self,
        model: UnifiedModel,
        trajectories: Sequence[Trajectory],
        sampler: Sampler,
        *,
        context_gradient: bool,
        steps: int,
    ) -> Iterator[ReplayPart]:
        return self.turn.replay_parts(
            model, _requests(trajectories), trajectories, sampler, context_gradient=context_gradient, steps=steps
        )


def _requests(trajectories: Sequence[Trajectory]) -> list[Request]:
    """What the samples of a replay start from."""
    return [Request(prompt=t.prompt, key=t.key, text=t.prompt.text, source=t.source) for t in trajectories]
