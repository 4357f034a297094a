"""What an objective is: a loss of replayed log-probabilities and advantages, summed over micro-batches.

Reductions divide by global counts known before the first backward, so the sum of the losses of all micro-batches
is the loss of the whole update, however it was cut. Shape suffixes: project/trajectory.py.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from project.core.metrics import Mean
from project.trajectory import Group, Replay, SampleKey, Trajectory

FirstStepRatio = Literal["measured", "one"]
"""The ratio that a loss uses at the first optimizer step on a rollout: as measured, or 1 with the exact gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Denominators of one update, over the surviving samples of all ranks."""

    samples: int
    steps: int
    """Trained denoising steps: over samples, images and the steps of their window."""
    tokens: int
    """Trained text tokens."""
    sequences: int
    """Texts with at least one trained token."""
    world_size: int = 1
    """Ranks that gradients are averaged over; the loss is multiplied by it, so that the average is the sum."""
    entropy_threshold: float = -math.inf
    """Least entropy [nats] of a token that the text policy loss counts (see `entropy_threshold`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """One micro-batch of B samples, and the counts of the whole update."""

    replay: Replay
    image_advantage_B: Tensor
    text_advantage_B: Tensor
    counts: Counts
    text_weight: float = 1.0
    """Of the text loss, on top of the objective's own."""
    first: bool = False
    """Of the first optimizer step on a rollout: the weights are still those of the rollout, so every ratio is 1."""
    keys: Sequence[SampleKey] = ()
    """Of the B samples; noise that a loss draws is a hash of them, so that it depends on no micro-batch and no rank."""
    round: int = 0
    """Of refinement, which belongs to that hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutputs:
    """The loss of a micro-batch (with gradient), and what to log."""

    loss: Tensor
    metrics: Mapping[str, Mean[Tensor]] = field(default_factory=dict)
    maxima: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars that are reduced to their maximum over micro-batches and ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an objective asks of rollout and replay.

    In addition, every replay holds the clean latents and the `velocity` of any state, for forward-process losses. The
    needs of several parts are joined by `|`.
    """

    reference: bool = False
    """`Replay.reference`: the same under the reference policy."""
    rollout_means: bool = False
    """`Replay.old_mean_RKLD`: means of the transitions under the weights of the rollout."""
    transitions: bool = True
    """Stochastic transitions to train; for an objective without this need all pictures are drawn by the ODE."""
    whole_samples: bool = True
    """All of a sample in one replay. An objective without this need is a sum over texts and trained steps that asks for
    no `clean_RLD` and no `velocity`, so that a replay may hold only the texts or only some steps
    (`update.steps_per_backward`)."""
    old_velocity: bool = False
    """`Replay.old_velocity`: the velocity under the rollout's weights, where these are not the present ones (from the
    second optimizer step on a rollout, or with `update.rollout_average`)."""
    unguided: bool = False
    """Pictures that are drawn without guidance, because the velocity that is trained has none."""
    states: int = 0
    """Noised states of each picture whose velocity it asks for with gradient (for the plan of memory and time)."""

    def __or__(self, other: Needs) -> Needs:
        flags = [f.name for f in dataclasses.fields(self) if f.name != "states"]
        either = {name: getattr(self, name) or getattr(other, name) for name in flags}
        return Needs(states=self.states + other.states, **either)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipWidths:
    """How far a ratio may be from 1 before it is clipped (the narrower side); None = it is not clipped."""

    image: float | None = None
    text: float | None = None


class Objective(ABC):
    """A loss. Subclasses hold hyperparameters only."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return type(self).__name__

    @property
    def needs(self) -> Needs:
        """What rollout and replay must keep for it."""
        return Needs()

    @property
    @abstractmethod
    def clip_widths(self) -> ClipWidths:
        """How far ratios may move. Of each that is not None, `maxima` must hold `ratio_error/image` or `/text`, the
        largest |ratio - 1|, for the on-policy gate."""

    @property
    def first_step_ratio(self) -> FirstStepRatio | None:
        """The ratio that the loss uses at the first optimizer step on a rollout; None = it has no such setting."""
        return None

    @abstractmethod
    def __call__(self, inputs: LossInputs) -> LossOutputs:
        """This micro-batch's share of the loss of the update."""

    def count(
        self, groups: Sequence[Group], *, world_size: int = 1, reduce: Callable[[Tensor], Tensor] | None = None
    ) -> Counts:
        """Denominators of the update.

        Args:
            groups: this rank's of one task, with advantages.
            world_size: ranks that gradients are averaged over.
            reduce: sum of an fp64 tensor over the ranks; this process alone if None. Called the same number of
                times by every rank.

        Raises:
            ValueError: before `advantages` ran.
        """
        samples = survivors(groups)
        texts = [text for sample in samples for text in sample.texts if len(text.ids_T)]
        steps = sum(len(image.step_K) for sample in samples for image in sample.images)
        tokens = sum(len(text.ids_T) for text in texts)
        local = torch.tensor([len(samples), steps, tokens, len(texts)], dtype=torch.float64)
        summed = [round(number) for number in (local if reduce is None else reduce(local)).tolist()]
        return Counts(samples=summed[0], steps=summed[1], tokens=summed[2], sequences=summed[3], world_size=world_size)


def survivors(groups: Sequence[Group]) -> list[Trajectory]:
    """Samples that are trained on. Raises ValueError before `advantages` ran."""
    kept = []
    for group in groups:
        if group.advantages is None:
            raise ValueError("counting needs advantages: call `advantages` on the scored group first")
        kept += [t for t, valid in zip(group.trajectories, group.advantages.valid_N.tolist(), strict=True) if valid]
    return kept


def with_entropy_threshold(
    counts: Counts, groups: Sequence[Group], quantile: float, reduce: Callable[[Tensor], Tensor] | None = None
) -> Counts:
    """Counts that keep the `quantile` of all trained tokens of all ranks with the highest entropy."""
    entropies = [text.entropy_T for sample in survivors(groups) for text in sample.texts]
    entropy_M = torch.cat(entropies) if entropies else torch.zeros(0)
    return dataclasses.replace(counts, entropy_threshold=entropy_threshold(entropy_M, quantile, reduce))


def entropy_threshold(entropy_M: Tensor, quantile: float, reduce: Callable[[Tensor], Tensor] | None = None) -> float:
    """Highest threshold that keeps at least `quantile` of the tokens (of all ranks), to 1/4096 nat.

    By a histogram, which adds up over ranks in one sum. Entropies above 16 nats (a vocabulary of 9 million) share
    the last bin.

    Args:
        entropy_M: entropies [nats] of this rank's tokens, as the sampler saw them.
        quantile: share to keep, in (0, 1].
        reduce: sum of an fp64 tensor over the ranks; this process alone if None.
    """
    bins_per_nat, highest = 4096, 16
    bin_M = (entropy_M.detach().double().cpu().clamp(0, highest) * bins_per_nat).long()
    local = torch.bincount(bin_M, minlength=highest * bins_per_nat + 1).double()
    tokens = local if reduce is None else reduce(local)
    at_least = tokens.flip(0).cumsum(0).flip(0)
    enough = torch.nonzero(at_least >= quantile * tokens.sum()).flatten()
    lowest = int(enough[-1]) if tokens.sum() > 0 else 0
    # The first bin means everything: rounding may leave an entropy just below 0.
    return lowest / bins_per_nat if lowest > 0 else -math.inf
