"""Jobs that go on while something else is done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Jobs:
    """Does jobs one after the other.

    Args:
        name: Of the thread, in tracebacks.
        beside: In a thread of its own; else at once.
    """

    def __init__(self, name: str, beside: bool = True) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) if beside else None
        self._jobs: list[Future[None]] = []

    @property
    def waiting(self) -> int:
        """Number of jobs that are not done."""
        return sum(not job.done() for job in self._jobs)

    def add(self, work: Callable[[], None]) -> None:
        """One more. What it raises is raised by `check`."""
        if self._pool is not None:
            self._jobs.append(self._pool.submit(work))
            return
        job: Future[None] = Future()
        try:
            work()
            job.set_result(None)
        except Exception as error:
            job.set_exception(error)
        self._jobs.append(job)

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

    def close(self) -> None:
        """Drops those that have not begun, and waits for nothing."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
