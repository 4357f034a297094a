"""`together`: a judge that is lost to one rank ends the training of all, at one place, so that they can save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from project.judges.base import JudgeUnavailable


@contextmanager
def together(any_rank: Callable[[bool], bool]) -> Iterator[None]:
    """Around the part of an update in which judges are asked and ranks do not wait for one another.

    Args:
        any_rank: whether it is true on any rank; a collective call, made once by every rank at the end of the part.

    Raises:
        JudgeUnavailable: on every rank (`agreed`), if one raised it.
    """
    lost: JudgeUnavailable | None = None
    try:
        yield
    except JudgeUnavailable as error:
        lost = error
    if any_rank(lost is not None):
        raise JudgeUnavailable(str(lost or "the judge of another rank stopped answering"), agreed=True) from lost
