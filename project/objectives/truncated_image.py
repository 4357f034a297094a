"""Truncated importance weights of denoising steps, for several optimizer steps on a rollout."""

from __future__ import annotations

from torch import Tensor

from project.objectives.base import FirstStepRatio
from project.objectives.ratio_image import RatioImage
from project.objectives.terms import check_positive, truncated_loss


class TruncatedImage(RatioImage):
    """`-A min(ratio, 1 + c)` of each trained step, whose gradient is that weight times the gradient of log-probability.

    Steps beyond the cap keep a gradient, which clipping would remove (CISPO, arXiv 2506.13585). With one optimizer
    step per rollout it is the plain policy gradient.

    Args:
        excess: c, how far above 1 a weight may be. It is small for the same reason as the clip of `GRPOImage`.

    Raises:
        ValueError: if the excess is not positive.
    """

    def __init__(self, excess: float = 1e-4, first_step_ratio: FirstStepRatio = "measured") -> None:
        super().__init__(first_step_ratio)
        check_positive(excess=excess)
        self.excess = excess

    @property
    def clip_width(self) -> float:
        return self.excess

    def surrogate(self, log_ratio_RK: Tensor, advantage_RK: Tensor) -> Tensor:
        return truncated_loss(log_ratio_RK, advantage_RK, 1 + self.excess)

    def cut(self, log_ratio_RK: Tensor, advantage_RK: Tensor) -> Tensor:
        return log_ratio_RK.expm1() > self.excess
