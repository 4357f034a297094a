"""Batches on one device in this process, on several in processes of their own; what fails says so and nothing hangs."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from pathlib import Path

import pytest
import torch

from project.inference.processes import team
from tests.helpers.workers import doubling, never_ready, troubled

CPU = torch.device("cpu")
BATCHES = [[1, 2], [3], [4, 5]]


def test_one_device_is_worked_by_this_process_in_order(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with team(partial(doubling, tmp_path), [CPU]) as workers:
        assert workers.told == "ready on cpu"
        assert list(workers.work(BATCHES)) == [(2 * n, os.getpid()) for n in range(1, 6)]


def test_two_devices_share_the_batches(tmp_path: Path) -> None:
    with team(partial(doubling, tmp_path), [CPU, CPU]) as workers:
        assert workers.told == "ready on cpu"
        made = list(workers.work(BATCHES))
    assert sorted(number for number, _ in made) == [2, 4, 6, 8, 10]
    processes = {process for _, process in made}
    assert len(processes) == 2 and os.getpid() not in processes
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("trouble", "error", "message"),
    [
        ("mistake", RuntimeError, r"the process on cpu failed:(.|\n)*workers\.py(.|\n)*IndexError: a mistake"),
        ("killed", ChildProcessError, r"the process on cpu was ended by SIGKILL: if memory was short"),
    ],
)
def test_a_process_that_fails_ends_the_work(trouble: str, error: type[Exception], message: str) -> None:
    made = []
    with pytest.raises(error, match=message), team(partial(troubled, trouble), [CPU, CPU]) as workers:
        made.extend(workers.work([[1]]))
        for number in workers.work([[2, 0, 3]]):
            made.append(number)
    assert made == [1, 2], "what came before is there"
    assert multiprocessing.active_children() == []


def test_what_cannot_be_made_ready_is_told() -> None:
    with pytest.raises(ValueError, match=r"^no model here$"), team(never_ready, [CPU, CPU]):
        pass
    assert multiprocessing.active_children() == []
