"""Benchmarks whose questions are answered by yes or no."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from project.benchmarks.pictures_of_others.base import Item, Part, Picture, PictureBenchmark
from project.core.growing_rows import Row
from project.judges.base import Judge, check_answers
from project.trajectory import Question

THRESHOLD = 0.5
"""A confidence above it says yes."""


DIGITS = 6
"""Significant digits of a confidence in a row: further ones depend on what was asked together."""


class YesNoBenchmark(PictureBenchmark[Item]):
    """Asks a judge one question at a time; a row holds the confidences in yes, in the order of the questions.

    A picture with a question that is not answered is not judged.

    Args:
        judge: Who answers.
        samples: Pictures of each item.
        model: Name of a model's folder, where the layout has folders of several models.
    """

    parts: ClassVar[Mapping[str, Part]] = {"judge": Part(kind=Judge)}

    def __init__(self, judge: Judge, samples: int | None = None, model: str | None = None) -> None:
        super().__init__(samples, model)
        self.asked = judge

    @abstractmethod
    def questions(self, item: Item) -> Sequence[str]:
        """What is asked about each picture of an item."""

    def made_by(self) -> dict[str, str]:
        return {"judge": self.asked.name, "protocol": f"one question at a time, yes above a confidence of {THRESHOLD}"}

    def preflight(self, items: Sequence[Item]) -> None:
        self.asked.preflight()

    def judge(
        self, images: Sequence[np.ndarray], items: Sequence[Item], pictures: Sequence[Picture]
    ) -> list[Row | str]:
        questions = [[Question(text=text) for text in self.questions(item)] for item in items]
        answers = self.asked.answer(images, questions, [self.prompt(item) for item in items])
        check_answers(answers, [len(asked) for asked in questions], self.asked.name, self.asked.answer)
        return [_row(given) for given in answers]

    def worth(self, item: Item, row: Row) -> float:
        """The share of questions that are answered by yes."""
        said = words(row)
        return said.count("yes") / len(said)

    def told(self, item: Item, row: Row) -> list[str]:
        return [f"{c:.2f}  {question}" for c, question in zip(row["confidences"], self.questions(item), strict=True)]


def words(row: Row) -> list[str]:
    """ "yes" or "no" to each question of a row."""
    return ["yes" if confidence > THRESHOLD else "no" for confidence in row["confidences"]]


def _row(answers: Sequence[float | None]) -> Row | str:
    unanswered = sum(answer is None for answer in answers)
    if unanswered:
        return f"{unanswered} of {len(answers)} questions were not answered"
    return {"confidences": [float(f"{answer:.{DIGITS}g}") for answer in answers if answer is not None]}
