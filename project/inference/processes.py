"""Batches of work, done on several devices by processes of their own; on one device by this process.

Each process gets the next batch as soon as it is done with one, so slow batches hold up no other device. What a batch
gives must therefore not depend on which process does it.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

import torch

from project.core.errors import ScoringFailed

Told = TypeVar("Told", covariant=True)
Batch = TypeVar("Batch")
Result = TypeVar("Result", covariant=True)
READY, MADE, DONE, REFUSED, FAILED = "ready", "made", "done", "refused", "failed"
SECONDS_TO_END = 10.0
"""That a process has to end by itself before it is killed."""


@dataclass(frozen=True)
class Worker(Generic[Told, Batch, Result]):
    """A device that is ready.

    Attributes:
        told: what it says before any work.
        do: the results of a batch, each as soon as it is made.
    """

    told: Told
    do: Callable[[Batch], Iterator[Result]]


Make = Callable[[torch.device], Worker[Told, Batch, Result]]
"""Readies a device, for instance loads a model onto it. For several devices it must be importable (no closure)."""


class Team(Protocol[Told, Result]):
    """One or more workers."""

    @property
    def told(self) -> Told:
        """What the worker said that was ready first."""

    def work(self, batches: Iterable[Any]) -> Iterator[Result]:
        """The results of all batches, as they are made: in order of the batches only if there is one device.

        Raises:
            ValueError: what a worker raised as ValueError, OSError or ScoringFailed.
            ChildProcessError: a process was ended from outside, for instance by the system when memory was short.
            RuntimeError: any other error of a process, with its traceback.
        """


@contextmanager
def team(make: Make[Told, Batch, Result], devices: Sequence[torch.device]) -> Iterator[Team[Told, Result]]:
    """Workers on all devices, ready to work; they end with the block. Raises what `make` raises, as `Team.work`."""
    if len(devices) == 1:
        yield _Alone(_made(make, devices[0]))
        return
    processes = _Processes(make, devices)
    try:
        processes.begin()
        yield processes
    finally:
        processes.end()


class _Alone:
    """The team of one: this process."""

    def __init__(self, worker: Worker[Any, Any, Any]) -> None:
        self._worker = worker

    @property
    def told(self) -> Any:
        return self._worker.told

    def work(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            yield from self._worker.do(batch)


class _Processes:
    """A process for each device, with a line to each."""

    told: Any

    def __init__(self, make: Any, devices: Sequence[torch.device]) -> None:
        # A fork would share a CUDA context and locks that may be held.
        context = multiprocessing.get_context("spawn")
        on_cpu = sum(device.type == "cpu" for device in devices)
        threads = max(torch.get_num_threads() // on_cpu, 1) if on_cpu else None
        self._workers: dict[Connection, tuple[torch.device, Any]] = {}
        self._idle: list[Connection] = []
        for device in devices:
            ours, theirs = context.Pipe()
            own_threads = threads if device.type == "cpu" else None
            process = context.Process(target=_serve, args=(theirs, make, device, own_threads), daemon=True)
            process.start()
            theirs.close()
            self._workers[ours] = device, process

    def begin(self) -> None:
        """Waits until the first is ready."""
        line, _, self.told = self._heard()
        self._idle.append(line)

    def work(self, batches: Iterable[Any]) -> Iterator[Any]:
        waiting = deque(batches)
        busy: set[Connection] = set()
        while True:
            while waiting and self._idle:
                line = self._idle.pop()
                self._send(line, waiting.popleft())
                busy.add(line)
            if not waiting and not busy:
                return
            line, kind, value = self._heard()
            if kind == MADE:
                yield value
            else:  # done with a batch, or only just ready
                busy.discard(line)
                self._idle.append(line)

    def end(self) -> None:
        for line, (_, process) in self._workers.items():
            line.close()
            process.terminate()
        for _, process in self._workers.values():
            process.join(SECONDS_TO_END)
            if process.is_alive():
                process.kill()
                process.join()

    def _heard(self) -> tuple[Connection, str, Any]:
        """The next message of any of them. Raises as `Team.work`."""
        line: Any = wait(list(self._workers))[0]
        try:
            kind, value = line.recv()
        except (EOFError, ConnectionError):
            raise self._death(line) from None
        device, _ = self._workers[line]
        if kind == REFUSED:
            raise ValueError(value)
        if kind == FAILED:
            raise RuntimeError(f"the process on {device} failed:\n{value}")
        return line, kind, value

    def _send(self, line: Connection, batch: Any) -> None:
        try:
            line.send(batch)
        except ConnectionError:
            raise self._death(line) from None

    def _death(self, line: Connection) -> ChildProcessError:
        device, process = self._workers[line]
        process.join(SECONDS_TO_END)
        code = process.exitcode
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        return ChildProcessError(
            f"the process on {device} was ended {how}: if memory was short, take fewer devices or a smaller batch"
        )


class _Gone(Exception):
    """The process that gives the work has ended."""


def _serve(line: Connection, make: Any, device: torch.device, threads: int | None) -> None:
    """What a process does: readies its device, then works until the line ends."""
    # Ctrl-C reaches all processes of a terminal; the first one then ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An exception, so that a file that is half written is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def say(kind: str, value: Any = None) -> None:
        try:
            line.send((kind, value))
        except OSError:
            raise _Gone from None

    def next_batch() -> Any:
        try:
            return line.recv()
        except (EOFError, OSError):
            raise _Gone from None

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        worker = _made(make, device)
        say(READY, worker.told)
        while True:
            for result in worker.do(next_batch()):
                say(MADE, result)
            say(DONE)
    except _Gone:
        return
    except (ValueError, OSError, ScoringFailed) as error:
        with suppress(_Gone):
            say(REFUSED, str(error))
    except Exception:
        with suppress(_Gone):
            say(FAILED, traceback.format_exc())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _made(make: Any, device: torch.device) -> Worker[Any, Any, Any]:
    if device.type == "cuda":
        # What names no GPU of its own, such as a judge in this process, then takes this one.
        torch.cuda.set_device(device)
    worker: Worker[Any, Any, Any] = make(device)
    return worker
