"""Benchmarks whose questions are answered by yes or no."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from project.benchmarks.asking import Enquiry
from project.benchmarks.pictures.base import Item, Picture, PictureBenchmark
from project.benchmarks.pictures.free_text import protocol, rows_of_texts
from project.core.growing_rows import Row
from project.judges.base import Judge, check_answers
from project.judges.free_text import FreeTextJudge
from project.trajectory import Question

THRESHOLD = 0.5
"""A confidence above it says yes."""


DIGITS = 6
"""Significant digits of a confidence in a row: further ones depend on what was asked together."""


class YesNoBenchmark(PictureBenchmark[Item]):
    """Asks a judge one question at a time; a row holds the confidences in yes, in the order of the questions.

    A picture with a question that is not answered is not judged. A benchmark whose protocol has all questions of a
    picture in one text may take a FreeTextJudge as well: it overrides `enquiry` and `template`, and a row holds the
    words then.

    Args:
        judge: Who answers.
        samples: Pictures of each item.
    """

    template: str = ""
    """Name and version of the words of the text with all questions."""

    def __init__(self, judge: Judge | FreeTextJudge, samples: int | None = None) -> None:
        super().__init__(samples)
        self.asked = judge

    @abstractmethod
    def questions(self, item: Item) -> Sequence[str]:
        """What is asked about each picture of an item."""

    def enquiry(self, item: Item, image: np.ndarray) -> Enquiry[Any, Any]:
        """How all questions about a picture, uint8 [height, width, 3], are asked in one text.

        Its record has `answers`, "yes" or "no" each.
        """
        raise NotImplementedError(f"{type(self).__name__} asks one question at a time: give a Judge")

    def made_by(self) -> dict[str, str]:
        if isinstance(self.asked, FreeTextJudge):
            return {"judge": self.asked.name, "protocol": f"all questions in one text: {protocol(self.template)}"}
        return {"judge": self.asked.name, "protocol": f"one question at a time, yes above a confidence of {THRESHOLD}"}

    def preflight(self, items: Sequence[Item]) -> None:
        self.asked.preflight()

    def judge(
        self, images: Sequence[np.ndarray], items: Sequence[Item], pictures: Sequence[Picture]
    ) -> list[Row | str]:
        if isinstance(self.asked, FreeTextJudge):
            enquiries = [self.enquiry(item, image) for item, image in zip(items, images, strict=True)]
            return rows_of_texts(self.asked, enquiries, pictures, lambda record: {"answers": list(record.answers)})
        questions = [[Question(text=text) for text in self.questions(item)] for item in items]
        answers = self.asked.answer(images, questions, [self.prompt(item) for item in items])
        check_answers(answers, [len(asked) for asked in questions], self.asked.name, self.asked.answer)
        return [_row(given) for given in answers]

    def worth(self, item: Item, row: Row) -> float:
        """The share of questions that are answered by yes."""
        said = words(row)
        return said.count("yes") / len(said)

    def told(self, item: Item, row: Row) -> list[str]:
        said = row["answers"] if "answers" in row else [f"{confidence:.2f}" for confidence in row["confidences"]]
        return [f"{one:<4}  {question}" for one, question in zip(said, self.questions(item), strict=True)]


def words(row: Row) -> list[str]:
    """ "yes" or "no" to each question of a row."""
    if "answers" in row:
        return list(row["answers"])
    return ["yes" if confidence > THRESHOLD else "no" for confidence in row["confidences"]]


def _row(answers: Sequence[float | None]) -> Row | str:
    unanswered = sum(answer is None for answer in answers)
    if unanswered:
        return f"{unanswered} of {len(answers)} questions were not answered"
    return {"confidences": rounded([answer for answer in answers if answer is not None])}


def rounded(values: Sequence[float]) -> list[float]:
    """The values with as many significant digits as rows hold."""
    return [float(f"{value:.{DIGITS}g}") for value in values]
