"""What a task is: which texts and images make a trajectory, in which order, and how it is replayed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from project.core.timing import Stopwatch
from project.models.base import UnifiedModel
from project.rewards.scoring import Score
from project.samplers.base import Sampler
from project.trajectory import Group, Prompt, Replay, SampleKey, Trajectory

if TYPE_CHECKING:
    from project.tasks.turn import Turn


class Task(ABC):
    """Generates trajectories and replays them with gradient.

    Both directions of a task compose the same methods of `UnifiedModel` and the same sampler, so that before the
    first update every ratio is 1.
    """

    @property
    def turns(self) -> Sequence[Turn]:
        """The turns that it trains, or evaluates; what can be told of them before anything is drawn is checked."""
        return ()

    @property
    def evaluates_with_scores(self) -> bool:
        """Whether an evaluation depends on rewards (to choose pictures)."""
        return False

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Finds out before any work what it could not draw of these prompts. Raises ValueError or OSError."""
        return None

    @abstractmethod
    def rollout(
        self,
        model: UnifiedModel,
        prompts: Sequence[Prompt],
        keys: Sequence[SampleKey],
        sampler: Sampler,
        window: range,
        stopwatch: Stopwatch,
        score: Score | None = None,
    ) -> list[Group]:
        """Draw `len(keys) / len(prompts)` samples of each prompt, prompt by prompt.

        Args:
            keys: one per sample; all randomness is keyed by them.
            window: evaluations whose transitions are stochastic and trained; elsewhere the ODE is followed.
            score: asked for the scores of whole groups as soon as they are drawn; nothing is scored if None.

        Returns:
            The groups to train on, in the order in which they were made: always as many, on every rank. The last
            one holds the pictures that the task arrives at.

        Raises:
            ValueError: if the task cannot go on without scores and `score` is None.
        """

    def credit(self, groups: Sequence[Group], reduce: Callable[[Tensor], Tensor] | None = None) -> list[Group]:
        """The scored groups with the rewards that advantages are made of.

        Args:
            reduce: sum of an fp64 tensor over the ranks; called the same number of times by every rank.
        """
        return list(groups)

    @abstractmethod
    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        """Log-probabilities of trajectories of one group under the weights now.

        Args:
            context_gradient: let the image loss flow through the keys and values of the context (exact), or not
                (the paper's recipes).
        """
