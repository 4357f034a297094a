"""Groups of settings of `AlphaGRPO`: how rewards become advantages, and how a rollout becomes optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class AdvantageSettings:
    """How rewards become advantages.

    Args:
        combine: how several rewards add up: their weighted `sum`, or the weighted sum of what is `normalised` first,
            each reward within its group (less the mean, divided by the standard deviation), so that scales do not
            decide (GDPO). Logs, panels, evaluations and rules that look at rewards have the sum either way.
        scale_rewards: what advantages are divided by: the standard deviation over all samples of the update (`global`),
            over the group, or nothing (`none`).
        scale_floor: number added to the standard deviations, so that tiny differences of reward stay tiny.
        image_baseline: what a picture is compared with: all pictures of its `group`, or only those of the group with
            the same `context` (text and source picture). The latter needs texts that repeat, or `images_per_text`.
        baseline: what rewards are compared with: the `mean` of those samples, or the reward of one more sample of the
            prompt that is drawn `greedy`: by the most probable tokens and the ODE (ReMax, arXiv 2310.10505). That
            sample is scored and not trained; it costs a drawing for each prompt.
        clip: largest size of an image advantage.

    Raises:
        ValueError: if the greedy sample is to be the baseline of pictures that are compared within their context, or of
            rewards that are normalised within a group.
    """

    combine: Literal["sum", "normalised"] = "sum"
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
        if self.combine not in ("sum", "normalised"):
            raise ValueError(f"advantages.combine={self.combine!r} is unknown: choose sum or normalised")
        if self.combine == "normalised" and self.baseline == "greedy":
            raise ValueError(
                "advantages.combine=normalised compares rewards within a group, and the greedy sample is in none: set "
                "combine to sum, or baseline to mean"
            )

    @property
    def floor(self) -> float | None:
        """What is added to the standard deviations that rewards are normalised by; None = they are not."""
        return self.scale_floor if self.combine == "normalised" else None


@dataclass(frozen=True, kw_only=True)
class RolloutAverage:
    """Rollouts by an average of past policies (DiffusionNFT, arXiv 2509.16117).

    Before every rollout but the first: average <- d * average + (1 - d) * policy, d = min(slope * updates, highest).

    Args:
        slope: growth of d with every update.
        highest: largest d, below 1.

    Raises:
        ValueError: if slope is negative, or highest not in [0, 1).
    """

    slope: float = 1e-3
    highest: float = 0.5

    def __post_init__(self) -> None:
        if self.slope < 0 or not 0 <= self.highest < 1:
            raise ValueError(
                f"update.rollout_average: slope={self.slope}, highest={self.highest}: give a slope of at least 0, and "
                "a highest from 0 to below 1"
            )

    def decay(self, updates: int) -> float:
        """d before the rollout that follows so many updates."""
        return min(self.slope * updates, self.highest)


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """How a rollout becomes optimizer steps.

    Args:
        per_rollout: optimizer steps per rollout. With 1 every ratio is 1 by construction: the gradient is the policy
            gradient, and clipping only sees rounding noise.
        micro_batch_size: samples per backward; it changes memory and speed, never the gradient.
        steps_per_backward: trained steps of a picture per backward; None = all of them. The reasoning and what is read
            before it get a backward of their own. Fewer steps need less memory, often enough less that gradient
            checkpointing, which computes everything twice, is not needed. It never changes the gradient.
        gradient_clip: largest norm of the gradient.
        context_gradient: let the image loss reach the reasoning's states (exact), or cut it there (the paper).
        rollout_average: draw rollouts by an average of past policies; None = by the policy as it is. For objectives
            that compare velocities with those of the rollout (`NFTImage`, `AWMImage`).
        max_skipped: the run stops after this many updates in a row from which nothing could be learned (after
            `project.training.skipping.MOST_NOT_FINITE` if it is the gradient that is not finite).
    """

    per_rollout: int = 1
    micro_batch_size: int = 8
    steps_per_backward: int | None = None
    gradient_clip: float = 1.0
    context_gradient: bool = True
    rollout_average: RolloutAverage | None = None
    max_skipped: int = 100

    @property
    def keeps_rollout_policy(self) -> bool:
        """Whether the weights differ from the rollout's while an objective compares with these."""
        return self.per_rollout > 1 or self.rollout_average is not None

    def on_policy(self, updates: int) -> bool:
        """Whether the rollout that follows so many updates is of the weights that its first optimizer step has."""
        return self.rollout_average is None or updates == 0

    def __post_init__(self) -> None:
        if self.micro_batch_size < 1 or self.per_rollout < 1:
            raise ValueError("update.micro_batch_size and update.per_rollout must be at least 1")
        if self.steps_per_backward is not None and self.steps_per_backward < 1:
            raise ValueError(
                f"update.steps_per_backward={self.steps_per_backward}: give at least 1, or null for all trained steps"
            )
