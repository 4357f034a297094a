"""One ratio for each text (GSPO, arXiv 2507.18071)."""

from __future__ import annotations

from project.objectives.base import FirstStepRatio
from project.objectives.grpo_text import GRPOText


class GSPOText(GRPOText):
    """`GRPOText` with the ratio `exp(mean over tokens of new - old)` of the whole text, averaged over texts.

    Args:
        clip: (low, high). The paper's are small, because the ratio is a geometric mean over tokens.
    """

    def __init__(
        self,
        clip: tuple[float, float] = (3e-4, 4e-4),
        top_entropy_quantile: float = 1.0,
        first_step_ratio: FirstStepRatio = "measured",
    ) -> None:
        super().__init__(clip, "sequence", "sequences", top_entropy_quantile, first_step_ratio)
