"""Jobs beside other work, or at once."""

from __future__ import annotations

import threading

import pytest

from project.core.jobs import Jobs, Worker


def fails() -> None:
    raise ValueError("no")


@pytest.mark.parametrize("beside", [False, True])
def test_what_a_job_gives_and_what_it_raises_come_with_its_result(beside: bool) -> None:
    worker = Worker("w", beside)
    assert worker.submit(max, 1, 2).result() == 2
    failed = worker.submit(fails)
    with pytest.raises(ValueError, match="no"):
        failed.result()
    thread = worker.submit(threading.current_thread).result()
    assert (thread is threading.current_thread()) is not beside
    worker.close()


def test_jobs_are_done_in_order_and_dropped_at_the_end() -> None:
    go, done = threading.Event(), []
    jobs = Jobs("j")
    jobs.add(lambda: (go.wait(10), done.append(1))[1])
    jobs.add(lambda: done.append(2))
    assert jobs.waiting == 2 and not done
    jobs.check()
    go.set()
    jobs.finish()
    assert done == [1, 2] and jobs.waiting == 0
    begun, blocked = threading.Event(), threading.Event()
    jobs.add(lambda: (begun.set(), blocked.wait(10), done.append(3))[2])
    jobs.add(lambda: done.append(4))
    assert begun.wait(10)
    jobs.close()
    blocked.set()
    jobs._pool.shutdown(wait=True)  # type: ignore[union-attr]
    assert done == [1, 2, 3], "what had begun ends, the rest is dropped"


@pytest.mark.parametrize("beside", [False, True])
def test_a_failure_is_told_once(beside: bool) -> None:
    jobs = Jobs("j", beside)
    jobs.add(fails)
    with pytest.raises(ValueError, match="no"):
        jobs.finish()
    jobs.finish()
    jobs.check()
