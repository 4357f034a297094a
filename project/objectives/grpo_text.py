"""The clipped policy gradient of texts (GRPO, arXiv 2402.03300; asymmetric clip and token mean: DAPO, 2503.14476)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from project.objectives.base import FirstStepRatio
from project.objectives.ratio_text import RatioText
from project.objectives.terms import TextReduction, check_positive, clipped, clipped_loss


class GRPOText(RatioText):
    """`max(-A ratio, -A clip(ratio, 1 - low, 1 + high))` of each token.

    Args:
        clip: (low, high).

    Raises:
        ValueError: if a clip is not positive.
    """

    def __init__(
        self,
        clip: tuple[float, float] = (0.2, 0.28),
        importance_sampling_level: Literal["sequence", "token"] = "token",
        text_reduction: TextReduction = "tokens",
        top_entropy_quantile: float = 1.0,
        first_step_ratio: FirstStepRatio = "measured",
    ) -> None:
        super().__init__(importance_sampling_level, text_reduction, top_entropy_quantile, first_step_ratio)
        check_positive(**{"clip, low": clip[0], "clip, high": clip[1]})
        self.clip = clip

    @property
    def clip_width(self) -> float:
        return min(self.clip)

    def surrogate(self, log_ratio_RT: Tensor, advantage_RT: Tensor) -> Tensor:
        return clipped_loss(log_ratio_RT, advantage_RT, *self.clip)

    def cut(self, log_ratio_RT: Tensor, advantage_RT: Tensor) -> Tensor:
        return clipped(log_ratio_RT, advantage_RT, *self.clip)
