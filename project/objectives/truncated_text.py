"""Truncated importance weights of texts, for several optimizer steps on a rollout (CISPO, arXiv 2506.13585)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from project.objectives.base import FirstStepRatio
from project.objectives.ratio_text import RatioText
from project.objectives.terms import TextReduction, truncated_loss


class TruncatedText(RatioText):
    """`-A min(ratio, cap)` of each token, whose gradient is that weight times the gradient of log-probability.

    Tokens beyond the cap keep a gradient, which clipping would remove. With one optimizer step per rollout it is the
    plain policy gradient.

    Args:
        cap: largest weight.

    Raises:
        ValueError: if the cap is not above 1.
    """

    def __init__(
        self,
        cap: float = 2.0,
        importance_sampling_level: Literal["sequence", "token"] = "token",
        text_reduction: TextReduction = "tokens",
        top_entropy_quantile: float = 1.0,
        first_step_ratio: FirstStepRatio = "measured",
    ) -> None:
        super().__init__(importance_sampling_level, text_reduction, top_entropy_quantile, first_step_ratio)
        if not cap > 1:
            raise ValueError(f"cap={cap}: a weight is 1 where the policy has not changed, give a cap above 1")
        self.cap = cap

    @property
    def clip_width(self) -> float:
        return self.cap - 1

    def surrogate(self, log_ratio_RT: Tensor, advantage_RT: Tensor) -> Tensor:
        return truncated_loss(log_ratio_RT, advantage_RT, self.cap)

    def cut(self, log_ratio_RT: Tensor, advantage_RT: Tensor) -> Tensor:
        return log_ratio_RT.exp() > self.cap
