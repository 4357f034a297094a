"""Judges that answer in their own words: scores with a reason, JSON, a digit. Whoever asks reads the text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from project.core.digest import digest, image_digest
from project.core.errors import WrongReturn, place_of_code
from project.judges.base import AnyJudge


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FreeTextRequest:
    """What a judge is asked.

    Args:
        text: All that it is told.
        pictures: uint8 [height, width, 3] each, of any sizes; they stand before the text, in this order.
        attempt: 0 for the first time. Then the judge writes what is most probable (greedy decoding). Asked again in
            this way it would write the same text, so further attempts (1, 2, ...) are drawn at a low temperature, each
            with a seed of its own.
    """

    text: str
    pictures: tuple[np.ndarray, ...] = ()
    attempt: int = 0

    @property
    def key(self) -> bytes:
        """Equal for requests of equal content."""
        return digest(self.text.encode(), str(self.attempt).encode(), *map(image_digest, self.pictures))


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeText:
    """What a judge wrote, without its reasoning.

    Args:
        text: The answer.
        cut_off: It ended because it reached the longest length, so that something may be missing.
    """

    text: str
    cut_off: bool = False


class FreeTextJudge(AnyJudge):
    """Answers requests with texts."""

    @abstractmethod
    def write(self, requests: Sequence[FreeTextRequest]) -> list[FreeText | None]:
        """The answer to each request; None = unanswered, never a made-up text.

        Raises ValueError if a picture is no uint8 [height, width, 3], JudgeUnavailable if the judge has stopped
        answering altogether.
        """


def check_written(answers: Any, number: int, name: str, method: Callable[..., Any]) -> None:
    """Checks what a judge returned. Raises WrongReturn unless it is a `FreeText`, or None, for each of `number`
    requests."""
    judge = f"judge {name!r}{place_of_code(method)}"
    if not isinstance(answers, list | tuple) or len(answers) != number:
        raise WrongReturn(f"{judge} must answer each of {number} requests, with None if it cannot")
    if wrong := [type(answer).__name__ for answer in answers if not (answer is None or isinstance(answer, FreeText))]:
        raise WrongReturn(f"{judge} gave an answer of type {wrong[0]}: return FreeText(text=...), or None")
