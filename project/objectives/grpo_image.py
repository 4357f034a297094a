"""The clipped policy gradient of denoising steps (Flow-GRPO, arXiv 2505.05470)."""

from __future__ import annotations

from torch import Tensor

from project.objectives.base import FirstStepRatio
from project.objectives.ratio_image import RatioImage
from project.objectives.terms import check_positive, clipped, clipped_loss


class GRPOImage(RatioImage):
    """`max(-A ratio, -A clip(ratio, 1 - c, 1 + c))` of each trained step, `ratio = exp(log_prob - old log_prob)`.

    Args:
        clip: c. It is small because a log-probability is a mean over latents, so ratios are very near 1.

    Raises:
        ValueError: if the clip is not positive.
    """

    def __init__(self, clip: float = 1e-5, first_step_ratio: FirstStepRatio = "measured") -> None:
        super().__init__(first_step_ratio)
        check_positive(clip=clip)
        self.clip = clip

    @property
    def clip_width(self) -> float:
        return self.clip

    def surrogate(self, log_ratio_RK: Tensor, advantage_RK: Tensor) -> Tensor:
        return clipped_loss(log_ratio_RK, advantage_RK, self.clip, self.clip)

    def cut(self, log_ratio_RK: Tensor, advantage_RK: Tensor) -> Tensor:
        return clipped(log_ratio_RK, advantage_RK, self.clip, self.clip)
