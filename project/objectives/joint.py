"""An objective made of a loss of the pictures and a loss of the texts, each chosen by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce as fold
from operator import or_

from torch import Tensor

from project.objectives.base import (
    ClipWidths,
    Counts,
    FirstStepRatio,
    LossInputs,
    LossOutputs,
    Needs,
    Objective,
    with_entropy_threshold,
)
from project.objectives.parts import ImagePart, ImagePenalty, Part, TextPart, TextPenalty
from project.trajectory import Group


class Joint(Objective):
    """loss = image_weight * (image + image_penalty) + text_weight * (text + text_penalty).

    Args:
        image: the loss of the pictures; None = pictures are not trained.
        text: the loss of the texts; None = texts are not trained.
        image_weight: weight of the pictures' loss and penalty.
        text_weight: weight of the texts' loss and penalty.
        image_penalty: keeps pictures near the reference policy.
        text_penalty: keeps texts near the reference policy.

    Raises:
        ValueError: if a weight is negative, or neither image nor text is trained.
    """

    def __init__(
        self,
        image: ImagePart | None = None,
        text: TextPart | None = None,
        image_weight: float = 1.0,
        text_weight: float = 1.0,
        image_penalty: ImagePenalty | None = None,
        text_penalty: TextPenalty | None = None,
    ) -> None:
        if min(image_weight, text_weight) < 0:
            raise ValueError(f"image_weight={image_weight}, text_weight={text_weight}: none may be negative")
        if image is None and text is None:
            raise ValueError("nothing is trained: name an image part, a text part or both")
        self.image = image
        self.text = text
        self.image_weight = image_weight
        self.text_weight = text_weight
        self.image_penalty = image_penalty
        self.text_penalty = text_penalty

    @property
    def parts(self) -> list[Part]:
        """All that there are."""
        every = (self.image, self.image_penalty, self.text, self.text_penalty)
        return [part for part in every if part is not None]

    @property
    def label(self) -> str:
        return f"{type(self).__name__} of {', '.join(type(part).__name__ for part in self.parts)}"

    @property
    def needs(self) -> Needs:
        return fold(or_, (part.needs for part in self.parts))

    @property
    def clip_widths(self) -> ClipWidths:
        return ClipWidths(
            image=None if self.image is None else self.image.clip_width,
            text=None if self.text is None else self.text.clip_width,
        )

    @property
    def first_step_ratio(self) -> FirstStepRatio | None:
        settings = {part.first_step_ratio for part in self.parts} - {None}
        return "measured" if "measured" in settings else next(iter(settings), None)

    def count(
        self, groups: Sequence[Group], *, world_size: int = 1, reduce: Callable[[Tensor], Tensor] | None = None
    ) -> Counts:
        counts = super().count(groups, world_size=world_size, reduce=reduce)
        if self.text is None or self.text.top_entropy_quantile == 1:
            return counts
        return with_entropy_threshold(counts, groups, self.text.top_entropy_quantile, reduce)

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        """This micro-batch's share of the loss.

        The maxima `ratio_error/image` and `ratio_error/text` are of |ratio - 1|: before a rollout's first update
        they must be 0 to rounding (see project/callbacks/on_policy_gate.py).

        Raises:
            ValueError: if the replay lacks what a part needs.
        """
        image = _added(inputs, self.image, self.image_penalty)
        text = _added(inputs, self.text, self.text_penalty)
        weighted = [
            weight * output.loss
            for weight, output in (
                (self.image_weight, image),
                (self.text_weight * inputs.text_weight, text),
            )
            if output is not None
        ]
        outputs = [output for output in (image, text) if output is not None]
        return LossOutputs(
            loss=sum(weighted[1:], weighted[0]) * inputs.counts.world_size,
            metrics={name: mean for output in outputs for name, mean in output.metrics.items()},
            maxima={name: value for output in outputs for name, value in output.maxima.items()},
        )


def _added(inputs: LossInputs, *parts: Part | None) -> LossOutputs | None:
    outputs = [part(inputs) for part in parts if part is not None]
    if not outputs:
        return None
    return LossOutputs(
        loss=sum((output.loss for output in outputs[1:]), outputs[0].loss),
        metrics={name: mean for output in outputs for name, mean in output.metrics.items()},
        maxima={name: value for output in outputs for name, value in output.maxima.items()},
    )
