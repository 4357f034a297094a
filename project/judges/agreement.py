"""What ranks agree on where one of them may be kept, or lost, by its judge.

`together`: scoring that fails on one rank ends the training of all, at one place, so that they can save.
`lengthen_timeout`: ranks wait for the one whose judge is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from torch import distributed

from project.core.errors import ScoringFailed

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

LONGEST_TIMEOUT = timedelta(days=365)
"""Of collectives, where somebody is ready to wait for ever."""


def lengthen_timeout(strategy: Strategy, seconds: float) -> None:
    """Lets ranks wait for one another in collectives for `seconds` longer than the strategy's time-out.

    Otherwise a judge that keeps one rank waiting would end the run of all the others. Does nothing in a single process.
    """
    if not seconds or not distributed.is_available() or not distributed.is_initialized():
        return
    given: timedelta = getattr(strategy, "_timeout", None) or distributed.constants.default_pg_timeout
    longer = min(given.total_seconds() + seconds, LONGEST_TIMEOUT.total_seconds())
    distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=longer))


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
