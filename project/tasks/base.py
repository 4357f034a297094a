"""What a task is: which texts and images make a trajectory, in which order, and how it is replayed."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from project.core.ranks import ALONE, Ranks
from project.core.timing import Stopwatch
from project.models.base import UnifiedModel
from project.rewards.scoring import Scorer
from project.samplers.guidance import Guidance
from project.samplers.sampler import Sampler
from project.tasks.parts import ReplayPart
from project.trajectory import Group, Prompt, Replay, SampleKey, Trajectory

if TYPE_CHECKING:
    from project.tasks.turn import Turn

ChangeGuidance = Callable[[Guidance], Guidance]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Everything that a rollout needs: the policy, the prompts, and what decides the random draws.

    Attributes:
        keys: one per sample of the update, prompt by prompt, G of each; they decide all random numbers. This rank
            draws those at the places `mine`.
        stochastic: whether pictures take the sampler's stochastic steps; else they follow the ODE (evaluation).
        training: whether the groups will be trained on; else they are evaluated.
        score: is asked about samples as soon as they are drawn; None = nothing is scored.
        keep_means: keep the means of the transitions, for objectives that need them.
        ranks: the processes that the samples are dealt to.
    """

    model: UnifiedModel
    prompts: Sequence[Prompt]
    keys: Sequence[SampleKey]
    sampler: Sampler
    training: bool
    stochastic: bool = False
    score: Scorer | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    keep_means: bool = False
    ranks: Ranks = ALONE

    @property
    def mine(self) -> range:
        """Places of the samples that this rank draws."""
        return self.ranks.share(len(self.keys))

    @property
    def size(self) -> int:
        """G, samples of each prompt."""
        return len(self.keys) // len(self.prompts)

    def prompt(self, n: int) -> Prompt:
        """The prompt of sample `n`."""
        return self.prompts[n // self.size]

    def steps(self, key: SampleKey) -> Sequence[int]:
        """Evaluations of a sample that are stochastic, and trained."""
        return self.sampler.steps(key) if self.stochastic else range(0)


class EvaluationTask(ABC):
    """Draws pictures of prompts, to be measured."""

    @property
    def turns(self) -> Sequence[Turn]:
        """The turns that it makes; their settings are checked before anything is drawn."""
        return ()

    @property
    def evaluates_with_scores(self) -> bool:
        """Whether an evaluation depends on rewards (to choose pictures)."""
        return False

    def with_guidance(self, change: ChangeGuidance) -> EvaluationTask:
        """The same task with other guidance. Raises ValueError for a task that draws and does not say how."""
        if self.turns:
            raise ValueError(f"{type(self).__name__} has no `with_guidance`: write one, or leave its guidance as it is")
        return self

    def _changed(self, **attributes: Any) -> Self:
        """A copy with other attributes."""
        new = copy.copy(self)
        vars(new).update(attributes)
        return new

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Finds out before any work what it could not draw of these prompts. Raises ValueError or OSError."""
        return None

    @abstractmethod
    def rollout(self, rollout: Rollout) -> list[Group]:
        """Draw this rank's samples (`Rollout.mine`), in order.

        Returns:
            In training, the groups to train on, in the order in which they were made. Their number is always the same,
            on every rank; the last one holds the final pictures. In an evaluation, the first pictures, and then those
            that the task makes from them.

        Raises:
            ValueError: if the task cannot go on without scores and `rollout.score` is None.
        """


class Task(EvaluationTask):
    """Generates trajectories and replays them with gradient.

    Rollout and replay use the same methods of `UnifiedModel` and the same sampler, so every ratio is 1 before the first
    update.
    """

    def check_group(self, size: int) -> None:
        """Finds out before any work whether it can train with `size` samples of a prompt (G). Raises ValueError."""
        return None

    def greedy(self) -> Task:
        """The same task with greedy texts, for a baseline. Raises ValueError for a task whose rewards are not those of
        one picture a sample."""
        raise ValueError(
            f"{type(self).__name__} has no greedy sample to compare with: set "
            "model.init_args.advantages.baseline to mean"
        )

    def credit(self, groups: Sequence[Group], ranks: Ranks = ALONE) -> list[Group]:
        """The scored groups with the rewards from which advantages are computed.

        Args:
            ranks: the processes that the samples are dealt to, which make the same collective calls.
        """
        return list(groups)

    @abstractmethod
    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        """Log-probabilities of trajectories of one group under the present weights.

        Args:
            context_gradient: let the image loss flow through the keys and values of the context (exact), or not
                (the paper's recipes).
        """

    @property
    def replays_parts(self) -> bool:
        """Whether it has `replay_parts`, which `update.steps_per_backward` needs."""
        return type(self).replay_parts is not Task.replay_parts

    def replay_parts(
        self,
        model: UnifiedModel,
        trajectories: Sequence[Trajectory],
        sampler: Sampler,
        *,
        context_gradient: bool,
        steps: int,
    ) -> Iterator[ReplayPart]:
        """The replay in parts of at most `steps` trained steps, and one with the texts.

        Each part has a backward pass of its own before the next part is asked for. Their sum is what `replay` gives.
        All ranks get the same number of parts of a micro-batch of the same group.

        Raises ValueError for a task that replays whole samples only.
        """
        raise ValueError(f"{type(self).__name__} replays whole samples only: leave update.steps_per_backward out")
