"""Seconds and memory of phases, with a GPU that is played by a counter."""

from __future__ import annotations

import pytest
import torch

from project.core import timing
from project.core.timing import Stopwatch, free_unused_memory


class Device:
    """Counts as a GPU's allocator does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allocated = self.peak = self.kept = 0
        self.emptied = 0
        for name, function in {
            "is_available": lambda: True,
            "synchronize": lambda: None,
            "max_memory_allocated": lambda: self.peak,
            "memory_allocated": lambda: self.allocated,
            "memory_reserved": lambda: max(self.allocated, self.kept),
            "reset_peak_memory_stats": self.reset,
            "empty_cache": self.empty,
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def reset(self) -> None:
        self.peak = self.allocated

    def empty(self) -> None:
        self.emptied += 1
        self.kept = self.allocated

    def hold(self, gigabytes: float) -> None:
        self.allocated = round(gigabytes * 1e9)
        self.peak, self.kept = max(self.peak, self.allocated), max(self.kept, self.allocated)


def test_the_peak_belongs_to_the_phases_it_was_in(monkeypatch: pytest.MonkeyPatch) -> None:
    device, stopwatch = Device(monkeypatch), Stopwatch()
    device.hold(1)
    with stopwatch.phase("rollout"):
        device.hold(7)
        device.hold(2)
        with stopwatch.phase("judge"):
            device.hold(4)
            device.hold(2)
    device.hold(3)
    for size in (5, 6):
        with stopwatch.phase("replay"):
            device.hold(size)
        device.hold(2)
    found = stopwatch.memory()
    assert found == pytest.approx({"other": 6, "rollout": 7, "judge": 4, "replay": 6, "reserved": 7})
    assert stopwatch.memory() == {"other": 2, "reserved": 7}, "it starts again"


def test_only_much_unused_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    device.hold(2.5)
    device.hold(2)
    free_unused_memory()
    assert device.emptied == 0
    device.hold(0.5)
    free_unused_memory()
    assert device.emptied == 1 and torch.cuda.memory_reserved() == 5e8


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_what_the_process_holds() -> None:
    free_unused_memory()
    held = Stopwatch().memory()
    if not timing.RESIDENT.exists():
        assert held == {}
        return
    blocks = [torch.ones(25_000_000) for _ in range(4)]  # 0.4 GB
    assert 0.35 < Stopwatch().memory()["resident"] - held["resident"] < 0.45, len(blocks)
