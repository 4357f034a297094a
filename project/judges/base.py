"""Who answers questions about images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from project.core.errors import ScoringFailed, WrongReturn, place_of_code
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


def check_image(image: np.ndarray) -> None:
    """Raises ValueError unless it is uint8 [height, width, 3]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image of {image.dtype} {image.shape}: give uint8 [height, width, 3]")


def check_texts(texts: Sequence[str], prompts: Sequence[str]) -> None:
    """Raises ValueError unless there is one prompt per text."""
    if len(texts) != len(prompts):
        raise ValueError(f"{len(texts)} texts and {len(prompts)} prompts: give one prompt per text")


def check_answers(answers: Any, numbers: Sequence[int], name: str, method: Callable[..., Any]) -> None:
    """Checks what a judge returned.

    Args:
        answers: a row per picture or text.
        numbers: how many questions were asked about each.
        name: of the judge.
        method: that answered.

    Raises:
        WrongReturn: unless there is a number in [0, 1], or None, for every question.
    """
    judge = f"judge {name!r}{place_of_code(method)}"
    try:
        complete = [len(row) for row in answers] == list(numbers)
        in_range = all(value is None or 0 <= value <= 1 for row in answers for value in row)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WrongReturn(f"{judge} gave no lists of numbers ({error}): return a list of confidences each") from error
    if not complete:
        raise WrongReturn(f"{judge} must answer every question, with None if unknown")
    if not in_range:
        raise WrongReturn(f"{judge} gave a confidence outside [0, 1]: return None for no answer")


class AnyJudge(ABC):
    """What judges of pictures and of texts share."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Identity for caches and reports: two judges of one name give the same answers."""

    @abstractmethod
    def preflight(self) -> None:
        """Check, before any training, that the judge can answer. Raises ValueError with the remedy if it cannot."""

    @property
    def longest_wait(self) -> float:
        """How long one call may wait for a judge that is away [s].

        The other ranks of a run wait as long for this one.
        """
        return 0.0

    def stop_waiting(self) -> None:
        """The run is to end: wait no longer for a judge that is away, raise JudgeUnavailable at once.

        For answers under way in any thread; it may be called from a signal's handler.
        """
        return None

    def metrics(self) -> dict[str, Metric]:
        """Counters since the last call, by name; reset on read."""
        return {}


class BehindJudge(AnyJudge):
    """Leaves checking, waiting and counting to what stands behind it: another judge, or a model on servers."""

    @property
    @abstractmethod
    def behind(self) -> Any:
        """It has `preflight`, `longest_wait`, `stop_waiting` and `metrics`."""

    def preflight(self) -> None:
        self.behind.preflight()

    @property
    def longest_wait(self) -> float:
        wait: float = self.behind.longest_wait
        return wait

    def stop_waiting(self) -> None:
        self.behind.stop_waiting()

    def metrics(self) -> dict[str, Metric]:
        found: dict[str, Metric] = self.behind.metrics()
        return found


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
