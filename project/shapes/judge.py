"""The judge of the embedded world: a detector reads the picture, the question's text is parsed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from project.judges.base import Judge, check_pictures
from project.shapes.detector import detect
from project.shapes.questions import parse_question
from project.trajectory import Question


class DetectorJudge(Judge):
    """Answers from the picture and the text of the question alone; what it cannot parse is unanswered."""

    @property
    def name(self) -> str:
        return "shapes-detector"

    def preflight(self) -> None:
        """Nothing to check: the detector is part of the package."""

    def answer(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[Sequence[Question]],
        prompts: Sequence[str],
    ) -> list[list[float | None]]:
        check_pictures(images, questions, prompts)
        if not images:
            return []
        readings = detect(_stack(images))
        answers: list[list[float | None]] = []
        for n, asked in enumerate(questions):
            reading = readings[n]
            parsed = [parse_question(question.text) for question in asked]
            answers.append([None if p is None else float(p.probability(reading)[0]) for p in parsed])
        return answers


def _stack(images: Sequence[np.ndarray]) -> np.ndarray:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) != 1:
        raise ValueError(f"images of several sizes {sorted(shapes)}: the detector reads pictures of 64 x 64 pixels")
    return np.stack([np.asarray(image) for image in images])
