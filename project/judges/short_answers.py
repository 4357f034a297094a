"""Judges that tell how probable a given short answer is: "two" to "How many dogs are there?"."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from project.core.errors import WrongReturn, place_of_code
from project.judges.base import AnyJudge


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortAnswer:
    """An answer whose probability is wanted.

    Args:
        question: That it is given to.
        spellings: Ways to write it, a word or a number each. Upper and lower case are the same.
    """

    question: str
    spellings: tuple[str, ...]


class ShortAnswerJudge(AnyJudge):
    """Gives the probability of short answers to questions about pictures."""

    @abstractmethod
    def probabilities(
        self, images: Sequence[np.ndarray], answers: Sequence[Sequence[ShortAnswer]]
    ) -> list[list[float | None]]:
        """Per image and answer the probability that the judge gives it, in [0, 1]; None = unknown, never a made-up
        number.

        `images` are uint8 [height, width, 3]; `answers[n]` belong to image n. Raises ValueError if there is not one
        list per image, JudgeUnavailable if the judge has stopped answering altogether.
        """


def check_lists(images: Sequence[Any], answers: Sequence[Any]) -> None:
    """Raises ValueError unless there is one list of answers per image."""
    if len(images) != len(answers):
        raise ValueError(f"{len(images)} images and {len(answers)} lists of answers: give one list per image")


def check_probabilities(found: Any, numbers: Sequence[int], name: str, method: Callable[..., Any]) -> None:
    """Checks what a judge returned. Raises WrongReturn unless it is a list with a number in [0, 1], or None, for each
    answer; `numbers` says how many answers each image has."""
    judge = f"judge {name!r}{place_of_code(method)}"
    try:
        right = [len(row) for row in found] == list(numbers) and all(
            value is None or 0 <= value <= 1 for row in found for value in row
        )
    except (TypeError, ValueError) as error:
        raise WrongReturn(f"{judge} gave no lists of numbers ({error}): return a list for each image") from error
    if not right:
        raise WrongReturn(f"{judge} must give each answer a probability from 0 to 1, or None if it is unknown")
