"""Who answers questions about images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from project.core.errors import ScoringFailed
from project.core.metrics import Metric
from project.trajectory import Question


class JudgeUnavailable(ScoringFailed):
    """The judge has stopped answering altogether; the message says so."""


def check_pictures(images: Sequence[Any], questions: Sequence[Any], prompts: Sequence[str]) -> None:
    """Raises ValueError unless there is one list of questions and one prompt per image."""
    if not len(images) == len(questions) == len(prompts):
        raise ValueError(
            f"{len(images)} images, {len(questions)} lists of questions and {len(prompts)} prompts: "
            "give one list of questions and one prompt per image"
        )


def check_texts(texts: Sequence[str], prompts: Sequence[str]) -> None:
    """Raises ValueError unless there is one prompt per text."""
    if len(texts) != len(prompts):
        raise ValueError(f"{len(texts)} texts and {len(prompts)} prompts: give one prompt per text")


class AnyJudge(ABC):
    """What judges of pictures and of texts share."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Identity for caches and reports: two judges of one name give the same answers."""

    @abstractmethod
    def preflight(self) -> None:
        """Check, before any training, that the judge can answer. Raises ValueError with the remedy if it cannot."""

    def stop_waiting(self) -> None:
        """The run is to end: wait no longer for a judge that is away, raise JudgeUnavailable at once.

        For answers under way in any thread; it may be called from a signal's handler.
        """
        return None

    def metrics(self) -> dict[str, Metric]:
        """Counters since the last call, by name; reset on read."""
        return {}


class Judge(AnyJudge):
    """Answers yes/no questions with confidences.

    It is given the image, the question's text and the prompt's text. Whether it uses the prompt is its own choice.
    """

    @abstractmethod
    def answer(
        self,
        images: Sequence[np.ndarray],
        questions: Sequence[Sequence[Question]],
        prompts: Sequence[str],
    ) -> list[list[float | None]]:
        """Per image and question the confidence in "yes", in [0, 1]; None = unanswered, never a made-up number.

        `images` are uint8 [height, width, 3]; `questions[n]` and `prompts[n]` belong to image n. Raises ValueError
        if the three have different lengths, JudgeUnavailable if the judge has stopped answering altogether.
        """


class TextJudge(AnyJudge):
    """Answers yes/no questions about texts with confidences. It sees the text, the question and the prompt's text."""

    @abstractmethod
    def answer_texts(
        self, texts: Sequence[str], questions: Sequence[str], prompts: Sequence[str]
    ) -> list[list[float | None]]:
        """Per text and question the confidence in "yes", in [0, 1]; None = unanswered, never a made-up number.

        Every question is asked of every text; `prompts[n]` is what text n was written for. Raises ValueError if there
        are not as many prompts as texts.
        """
