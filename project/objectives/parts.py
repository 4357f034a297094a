"""Parts of an objective: a loss of the pictures, a loss of the texts, and penalties on either.

`project.objectives.Joint` adds them up, so that any loss of the pictures can be trained with any loss of the texts.
A part returns its share of the loss, divided by the counts of the whole update; weights and ranks are Joint's affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from project.objectives.base import FirstStepRatio, LossInputs, LossOutputs, Needs


class Part(ABC):
    """A term of an objective. Subclasses hold hyperparameters only."""

    @property
    def needs(self) -> Needs:
        """What rollout and replay must keep for it."""
        return Needs(transitions=False)

    @property
    def clip_width(self) -> float | None:
        """How far a ratio may be from 1 before the loss changes it (the narrower side); None = it has no ratio that a
        rollout could be checked by. If it is not None, `maxima` must hold `ratio_error/image` or `/text`."""
        return None

    @property
    def first_step_ratio(self) -> FirstStepRatio | None:
        """The ratio that it uses at the first optimizer step on a rollout; None = it has no such setting."""
        return None

    @abstractmethod
    def __call__(self, inputs: LossInputs) -> LossOutputs:
        """This micro-batch's share of the term.

        Raises:
            ValueError: if the replay lacks what `needs` asks for.
        """


class ImagePart(Part):
    """A loss of the pictures."""


class TextPart(Part):
    """A loss of the texts.

    Args:
        top_entropy_quantile: only this share of the update's tokens, those with the highest entropy, counts in the
            loss; denominators stay those of all tokens. 1 = all tokens (arXiv 2506.01939).

    Raises:
        ValueError: if the quantile is outside (0, 1].
    """

    def __init__(self, top_entropy_quantile: float = 1.0) -> None:
        if not 0 < top_entropy_quantile <= 1:
            raise ValueError(f"top_entropy_quantile={top_entropy_quantile}: give a share in (0, 1]; 1 keeps all tokens")
        self.top_entropy_quantile = top_entropy_quantile


class Penalty(Part):
    """What keeps the policy near another one.

    Args:
        weight: weight of the penalty.

    Raises:
        ValueError: if the weight is negative.
    """

    def __init__(self, weight: float) -> None:
        if weight < 0:
            raise ValueError(f"weight={weight}: the weight of a penalty may not be negative")
        self.weight = weight


class ImagePenalty(Penalty):
    """What keeps pictures near those of another policy."""


class TextPenalty(Penalty):
    """What keeps texts near those of another policy."""
