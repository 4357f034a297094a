"""When a picture is refined again: one rule for training, evaluation and inference."""

from __future__ import annotations

import math
from dataclasses import dataclass

NOTHING_WRONG = "nothing is wrong"
"""The words of a reflection that finds the picture right."""
PROMPT = "{prompt}"
"""Where the prompt stands in a template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRule:
    """Which pictures are refined, and when a sample is done.

    Attributes:
        below: only pictures with a lower score are refined, and none without a score; None = all are.
        right: words that mark a reflection which finds nothing wrong. It ends the sample. None = every round is drawn.
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
    """The text beside a picture that is refined: the template with the prompt in place of "{prompt}"."""
    return template.replace(PROMPT, prompt)


def check_wording(wording: str | None) -> None:
    """Raises ValueError for a template that names no prompt: the model would not know what to compare with."""
    if wording is not None and PROMPT not in wording:
        raise ValueError(f"wording={wording!r}: write {PROMPT} where the prompt is to stand")
