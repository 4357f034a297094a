"""A judge that errs on purpose: what rewards are compared with, where an exact judge would make it trivial."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from project.core.digest import pixel_key
from project.core.randomness import keyed_generator
from project.judges.base import BehindJudge, Judge, check_answers
from project.trajectory import Question


class NoisyJudge(BehindJudge, Judge):
    """Another judge's confidences c, moved: sigmoid(logit(c) + z) with z normal of deviation `noise`.

    z depends only on picture, question and seed: the same question about the same picture gets the same wrong answer
    again, as from a real judge, and asking twice does not help. Confidences are first held inside
    [`floor`, 1 - `floor`], because no real judge is certain.

    Args:
        judge: who is disturbed.
        noise: standard deviation [logits]. At 2 about 1 in 7 of the confident answers (c = 0.9 or 0.1) turns round.
        floor: least confidence that is disturbed.
        seed: of the errors.
    """

    def __init__(self, judge: Judge, noise: float = 2.0, floor: float = 0.1, seed: int = 0) -> None:
        if noise < 0 or not 0 < floor < 0.5:
            raise ValueError(f"noise={noise}, floor={floor}: give a deviation of 0 or more and a floor in (0, 0.5)")
        self.judge = judge
        self.noise = noise
        self.floor = floor
        self.seed = seed

    @property
    def behind(self) -> Judge:
        return self.judge

    @property
    def name(self) -> str:
        return f"{self.judge.name}+noise{self.noise:g}-floor{self.floor:g}-seed{self.seed}"

    def answer(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[Sequence[Question]],
        prompts: Sequence[str],
    ) -> list[list[float | None]]:
        answers = self.judge.answer(images, questions, prompts)
        check_answers(answers, [len(asked) for asked in questions], self.judge.name, self.judge.answer)
        disturbed: list[list[float | None]] = []
        for image, asked, row in zip(images, questions, answers, strict=True):
            picture = pixel_key(image)
            disturbed.append(
                [
                    None if value is None else self._moved(value, picture, question.text)
                    for value, question in zip(row, asked, strict=True)
                ]
            )
        return disturbed

    def _moved(self, confidence: float, picture: str, question: str) -> float:
        held = min(max(confidence, self.floor), 1 - self.floor)
        z = torch.randn((), generator=keyed_generator(self.seed, "noisy judge", picture, question)).item()
        return 1 / (1 + math.exp(-(math.log(held / (1 - held)) + self.noise * z)))
