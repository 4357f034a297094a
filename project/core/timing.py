"""Seconds and memory per phase of an update."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

GB = 1e9
RESIDENT = Path("/proc/self/statm")
WORTH_FREEING = 1e9
"""Bytes of unused memory that are given back to a GPU: giving back a little costs more time than it is worth."""


class Stopwatch:
    """Adds up wall-clock seconds per named phase; waits for the accelerator so that phases do not blur.

    On a GPU it also keeps the largest memory of tensors in each phase. What happens between the phases is `other`.
    Phases may lie within each other; all of them belong to one thread.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.peaks: dict[str, int] = {}
        """Bytes."""
        self._open: list[str] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self._note_peak()
        self._open.append(name)
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self._note_peak()
            self._open.pop()
            self.seconds[name] += time.perf_counter() - start

    @property
    def current(self) -> str:
        """The innermost phase that is open; "other" outside all phases."""
        return self._open[-1] if self._open else "other"

    def reset(self) -> dict[str, float]:
        """The seconds so far; starts again from nothing."""
        seconds = dict(self.seconds)
        self.seconds.clear()
        return seconds

    def memory(self) -> dict[str, float]:
        """Gigabytes (1e9 bytes), and starts again from nothing: on a GPU the peak of each phase, and what the process
        holds of the GPU (`reserved`); elsewhere what it holds of the machine (`resident`), where Linux tells it."""
        self._note_peak()
        found = {name: peak / GB for name, peak in self.peaks.items()}
        self.peaks.clear()
        if torch.cuda.is_available():
            return {**found, "reserved": torch.cuda.memory_reserved() / GB}
        if RESIDENT.exists():
            return {"resident": int(RESIDENT.read_text().split()[1]) * resource.getpagesize() / GB}
        return {}

    def _note_peak(self) -> None:
        """The peak since the last note belongs to every phase that is open."""
        if not torch.cuda.is_available():
            return
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for name in self._open or ["other"]:
            self.peaks[name] = max(self.peaks.get(name, 0), peak)


def free_unused_memory() -> None:
    """Gives back what torch keeps of a GPU without using it; nothing elsewhere, or if it is little.

    Torch itself would take it again. Others on the GPU cannot: communication between ranks, and a judge.
    """
    if not torch.cuda.is_available():
        return
    if torch.cuda.memory_reserved() - torch.cuda.memory_allocated() > WORTH_FREEING:
        torch.cuda.empty_cache()
