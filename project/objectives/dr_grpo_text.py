"""No division by the length of a text (Dr.GRPO, arXiv 2503.20783)."""

from __future__ import annotations

from torch import Tensor

from project.objectives.base import Counts, FirstStepRatio
from project.objectives.grpo_text import GRPOText


class DrGRPOText(GRPOText):
    """`GRPOText` with ratios of tokens, summed over a text and divided by one constant length for all texts.

    Long texts then weigh as much as their tokens, whatever the other texts of the update are. The paper also leaves
    out the division of advantages by their standard deviation: `advantages: {scale_rewards: none}`.

    Args:
        length: the constant [tokens]; the limit of the task, `max_tokens`, is usual. It only scales the loss.

    Raises:
        ValueError: if the length is not positive.
    """

    def __init__(
        self,
        length: int,
        clip: tuple[float, float] = (0.2, 0.28),
        top_entropy_quantile: float = 1.0,
        first_step_ratio: FirstStepRatio = "measured",
    ) -> None:
        super().__init__(clip, "token", "tokens", top_entropy_quantile, first_step_ratio)
        if length < 1:
            raise ValueError(f"length={length}: give the tokens of the longest text (max_tokens of the task)")
        self.length = length

    def weights(self, mask_RT: Tensor, counts: Counts) -> tuple[Tensor, float]:
        return mask_RT.float(), max(counts.sequences, 1) * self.length
