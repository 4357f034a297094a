"""`together`: scoring that fails on one rank ends the training of all, at one place, so that they can save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from project.core.errors import ScoringFailed


@contextmanager
def together(any_rank: Callable[[bool], bool]) -> Iterator[None]:
    """Around the part of an update in which rewards are asked and ranks do not wait for one another.

    Args:
        any_rank: whether it is true on any rank; a collective call, made once by every rank at the end of the part.

    Raises:
        ScoringFailed: on every rank (`agreed`), if one raised it.
    """
    failed: ScoringFailed | None = None
    try:
        yield
    except ScoringFailed as error:
        failed = error
    if any_rank(failed is not None):
        if failed is None:
            raise ScoringFailed("the rewards of another rank failed: its message says why", agreed=True)
        raise type(failed)(str(failed), agreed=True) from failed
