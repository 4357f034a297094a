"""Groups of settings of `AlphaGRPO`: how rewards become advantages, and how a rollout becomes optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_NOT_FINITE = 3
"""The run stops after this many updates in a row without a finite gradient."""


@dataclass(frozen=True, kw_only=True)
class AdvantageSettings:
    """How rewards become advantages.

    Args:
        scale_rewards: what advantages are divided by: the standard deviation over all samples of the update (`global`),
            over the group, or nothing (`none`).
        scale_floor: number added to that standard deviation, so that tiny differences of reward stay tiny.
        image_baseline: what a picture is compared with: all pictures of its `group`, or only those of the group with
            the same `context` (text and source picture). The latter needs texts that repeat, or `images_per_text`.
        baseline: what rewards are compared with: the `mean` of those samples, or the reward of one more sample of the
            prompt that is drawn `greedy`: by the most probable tokens and the ODE (ReMax, arXiv 2310.10505). That
            sample is scored and not trained; it costs a drawing for each prompt.
        clip: largest size of an image advantage.

    Raises:
        ValueError: if the greedy sample is to be the baseline of pictures that are compared within their context.
    """

    scale_rewards: Literal["global", "group", "none"] = "global"
    scale_floor: float = 1e-4
    image_baseline: Literal["group", "context"] = "group"
    clip: float = 5.0
    baseline: Literal["mean", "greedy"] = "mean"

    def __post_init__(self) -> None:
        if self.baseline == "greedy" and self.image_baseline == "context":
            raise ValueError(
                "advantages.baseline=greedy has another text than the samples, so advantages.image_baseline=context "
                "has nothing to compare: set image_baseline to group, or baseline to mean"
            )


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """How a rollout becomes optimizer steps.

    Args:
        per_rollout: optimizer steps per rollout. With 1 every ratio is 1 by construction: the gradient is the policy
            gradient, and clipping only sees rounding noise.
        micro_batch_size: samples per backward; it changes memory and speed, never the gradient.
        gradient_clip: largest norm of the gradient.
        context_gradient: let the image loss reach the reasoning's states (exact), or cut it there (the paper).
        max_skipped: the run stops after this many updates in a row from which nothing could be learned (after
            `MOST_NOT_FINITE` if it is the gradient that is not finite).
    """

    per_rollout: int = 1
    micro_batch_size: int = 8
    gradient_clip: float = 1.0
    context_gradient: bool = True
    max_skipped: int = 100

    def __post_init__(self) -> None:
        if self.micro_batch_size < 1 or self.per_rollout < 1:
            raise ValueError("update.micro_batch_size and update.per_rollout must be at least 1")
