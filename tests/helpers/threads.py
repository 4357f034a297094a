"""Ranks as threads of one process: whatever only gathers can be tested with any number of them, in milliseconds."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from project.core.ranks import Ranks

T = TypeVar("T")


class Meeting:
    """Where the values of all ranks are laid down, call by call."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.values: list[Any] = [None] * size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = pickle.dumps(value)
        self.barrier.wait()
        found = [pickle.loads(sent) for sent in self.values]
        self.barrier.wait()
        return found


@dataclass(frozen=True, kw_only=True)
class ThreadRanks(Ranks):
    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def gather(self, value: T) -> list[T]:
        return self.meeting.exchange(self.rank, value)


def on_ranks(size: int, function: Callable[[Ranks], T]) -> list[T]:
    """What the function returns on each of so many ranks. One that raises ends the waiting of the others."""
    meeting = Meeting(size)

    def run(rank: int) -> T:
        try:
            return function(ThreadRanks(rank=rank, size=size, meeting=meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        running = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for future in running if (error := future.exception()) is not None]
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in running]
