"""Work for `project.inference.processes`: importable, as a process of its own needs it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from project.inference.processes import Worker

SECONDS = 60.0
"""That one process waits for the other, on a busy machine."""


def doubling(folder: Path, device: torch.device) -> Worker[str, list[int], tuple[int, int]]:
    """Doubles numbers and tells its process; before its first one it waits until two processes are at work."""

    def do(batch: list[int]) -> Iterator[tuple[int, int]]:
        (folder / str(os.getpid())).touch()
        end = time.monotonic() + SECONDS
        while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        yield from ((2 * number, os.getpid()) for number in batch)

    return Worker(f"ready on {device}", do)


def troubled(trouble: str, device: torch.device) -> Worker[None, list[int], int]:
    """Gives numbers back, until it meets 0."""

    def do(batch: list[int]) -> Iterator[int]:
        for number in batch:
            if not number:
                meet(trouble)
            yield number

    return Worker(None, do)


def never_ready(device: torch.device) -> Worker[None, list[int], int]:
    raise FileNotFoundError("no model here")


def meet(trouble: str) -> None:
    if trouble == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise IndexError("a mistake in the code")
