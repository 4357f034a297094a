"""What a task is: which texts and images make a trajectory, in which order, and how it is replayed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from project.models.base import UnifiedModel
from project.samplers.base import Sampler
from project.timing import Stopwatch
from project.trajectory import Prompt, Replay, SampleKey, Trajectory


class Task(ABC):
    """Generates trajectories and replays them with gradient.

    Both directions of a task compose the same methods of `UnifiedModel` and the same sampler, so that before the
    first update every ratio is 1.
    """

    @abstractmethod
    def rollout(
        self,
        model: UnifiedModel,
        prompts: Sequence[Prompt],
        keys: Sequence[SampleKey],
        sampler: Sampler,
        window: range,
        stopwatch: Stopwatch,
    ) -> list[Trajectory]:
        """Draw `len(keys) / len(prompts)` samples of each prompt, prompt by prompt.

        Args:
            keys: one per sample; all randomness is keyed by them.
            window: evaluations whose transitions are stochastic and trained; elsewhere the ODE is followed.
        """

    @abstractmethod
    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        """Log-probabilities of the trajectories under the weights now.

        Args:
            context_gradient: let the image loss flow through the keys and values of the context (exact), or not
                (the paper's recipes).
        """
