"""Jobs that are done one after the other, while something else is done or at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Does jobs one after the other.

    Args:
        name: Of the thread, in tracebacks.
        beside: In a thread of its own; else at once.
    """

    def __init__(self, name: str, beside: bool = True) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) if beside else None

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Has `work(*args)` done. What it raises is raised by `result()`."""
        if self._pool is not None:
            return self._pool.submit(work, *args)
        future: Future[T] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Drops jobs that have not begun, and waits for nothing."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


class Jobs(Worker):
    """A worker's jobs that give nothing, to be looked after together."""

    def __init__(self, name: str, beside: bool = True) -> None:
        super().__init__(name, beside)
        self._jobs: list[Future[None]] = []

    @property
    def waiting(self) -> int:
        """Number of jobs that are not done."""
        return sum(not job.done() for job in self._jobs)

    def add(self, work: Callable[[], None]) -> None:
        """One more. What it raises is raised by `check` or `finish`."""
        self._jobs.append(self.submit(work))

    def check(self) -> None:
        """Raises what a job raised that is done; those that went well are forgotten."""
        done = [job for job in self._jobs if job.done()]
        self._jobs = [job for job in self._jobs if not job.done()]
        for job in done:
            job.result()

    def finish(self) -> None:
        """Waits for all of them. Raises what the first of them raised that failed."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.result()
