"""A judge that stops answering after some questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from project.judges.base import Judge, JudgeUnavailable
from project.trajectory import Question


class MortalJudge(Judge):
    """Says 0.3 to everything.

    Args:
        calls: how often it answers before it is away for good.
    """

    def __init__(self, calls: int) -> None:
        self.calls = calls

    @property
    def name(self) -> str:
        return "mortal"

    def preflight(self) -> None:
        pass

    def answer(
        self, images: Sequence[np.ndarray], questions: Sequence[Sequence[Question]], prompts: Sequence[str]
    ) -> list[list[float | None]]:
        if not self.calls:
            raise JudgeUnavailable("judge 'mortal' answers no longer: start it again")
        self.calls -= 1
        return [[0.3] * len(asked) for asked in questions]
