"""When a picture is refined again: one rule for training, evaluation and inference."""

from __future__ import annotations

import math
from dataclasses import dataclass

NOTHING_WRONG = "nothing is wrong"
"""What a reflection says that finds the picture right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRule:
    """Which pictures are looked at, and when a sample is done.

    Attributes:
        below: only pictures with a lower score are refined, and none without a score; None = all are.
        right: what a reflection contains that finds nothing wrong, which ends the sample; None = every round is drawn.
    """

    below: float | None = None
    right: str | None = NOTHING_WRONG

    def refines(self, score: float | None) -> bool:
        """Whether a picture with this score (None or NaN = it has none) is refined."""
        if self.below is None:
            return True
        return score is not None and not math.isnan(score) and score < self.below

    def finds_nothing(self, reflection: str | None) -> bool:
        """Whether a reflection finds nothing wrong with the picture."""
        return self.right is not None and self.right.lower() in (reflection or "").lower()


def instruction(template: str, prompt: str) -> str:
    """What is said beside a picture: the template, which names the prompt as "{prompt}"."""
    return template.replace("{prompt}", prompt)
