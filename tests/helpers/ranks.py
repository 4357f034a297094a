"""Processes of a run, started by hand: each can be sent a signal, and none outlives its test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from tests.helpers import ROOT

LAUNCHED = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells its processes, as Lightning reads it."""


class Ranks:
    """Starts `python -m module *arguments` as `size` ranks of one run. As a context it ends all that still run.

    A single rank is started as a user would start it, without anything in its environment.
    """

    def __init__(self, size: int, module: str, arguments: Sequence[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # A pipe that nobody reads would fill up.
        self.said = [tempfile.TemporaryFile() for _ in range(size)]  # noqa: SIM115
        self.processes = []
        for rank, said in enumerate(self.said):
            told = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
            told |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            if size > 1:
                told |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(size)}
                told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            command = [sys.executable, "-m", module, *arguments]
            self.processes.append(subprocess.Popen(command, cwd=ROOT, env=told, stdout=said, stderr=subprocess.STDOUT))

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for process, said in zip(self.processes, self.said, strict=True):
            if process.poll() is None:
                process.kill()
            process.wait()
            said.close()

    def wait(self, timeout: float) -> list[int]:
        """The exit codes. Raises AssertionError, with what all of them said, if one runs longer: it hangs."""
        until = time.monotonic() + timeout
        for rank, process in enumerate(self.processes):
            try:
                process.wait(max(until - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"rank {rank} hangs after {timeout:.0f} s\n{self.tails()}") from None
        return [process.returncode for process in self.processes]

    def output(self, rank: int) -> str:
        """What a rank has said until now, on both streams."""
        file = self.said[rank].fileno()  # the process writes at the same offset, so it must not be moved
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")

    def tails(self, characters: int = 2500) -> str:
        """The last words of every rank."""
        return "\n".join(f"--- rank {rank}\n{self.output(rank)[-characters:]}" for rank in range(len(self.said)))


def run(size: int, module: str, *arguments: str, timeout: float = 240, codes: Sequence[int] = (0,)) -> list[str]:
    """Runs to the end and returns what each rank said. Raises AssertionError for any other exit code, or a hang."""
    with Ranks(size, module, arguments) as ranks:
        found = ranks.wait(timeout)
        assert set(found) <= set(codes), f"exit codes {found}\n{ranks.tails()}"
        return [ranks.output(rank) for rank in range(size)]
