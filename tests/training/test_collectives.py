"""Ranks stay in step: whatever one of them draws, or whatever happens to it, all make the same collective calls.

Every call of every rank is written down as it begins, those of FSDP2's hooks and of DTensor included. Equal numbers of
calls are not enough: the sequences are compared, with what the calls move.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import ranks
from tests.helpers.collectives import SCENARIOS, TROUBLE, UPDATES

SIZE = 2
QUICK = ("rounds", "sigterm")


UNEQUAL: dict[str, Callable[[dict[str, Any], dict[str, Any]], bool]] = {
    "texts": lambda first, last: first["texts"] != last["texts"],
    "rounds": lambda first, last: (first["rounds"], last["rounds"]) == ([1] * UPDATES, [3] * UPDATES),
    "stops": lambda first, last: sum(first["survivors"]) != sum(last["survivors"]),
    "kept": lambda first, last: not any(first["pictures"]) and all(last["pictures"]) and all(first["survivors"]),
    "dropped": lambda first, last: first["survivors"][TROUBLE] > 0 == last["survivors"][TROUBLE],
    "no_advantage": lambda first, last: first["teaches"][TROUBLE] and not last["teaches"][TROUBLE],
    "not_finite": lambda first, last: first["skipped"] == last["skipped"] == [0.0, 1.0, 0.0, 0.0],
    "judge_dies": lambda first, last: "nobody answers" in last["ended"] and "another rank" in first["ended"],
    "sigterm": lambda first, last: first["updates"] == last["updates"] == TROUBLE + 1,
    "disk_full": lambda first, last: "make room on that disk" in first["ended"] == last["ended"],
}
"""Whether the work of two ranks was unequal, or the trouble there, as the scenario means it."""


@pytest.mark.parametrize(
    ("strategy", "scenarios"),
    [
        pytest.param("fsdp2", QUICK, id="fsdp2-some"),
        pytest.param("ddp", tuple(SCENARIOS), id="ddp-all", marks=pytest.mark.slow),
        pytest.param("fsdp2", tuple(SCENARIOS), id="fsdp2-all", marks=pytest.mark.slow),
    ],
)
def test_all_ranks_make_the_same_calls(strategy: str, scenarios: tuple[str, ...], tmp_path: Path) -> None:
    try:
        ranks.run(SIZE, "tests.helpers.collectives", str(tmp_path), strategy, *scenarios, timeout=60 * len(scenarios))
    except AssertionError as hanging:
        pytest.fail(f"{hanging}\n" + "\n".join(parting(tmp_path, scenario) for scenario in scenarios))
    for scenario in scenarios:
        assert not parting(tmp_path, scenario)
        calls = (tmp_path / f"{scenario}_0.txt").read_text()
        hooks = ("_allgather_base_", "_reduce_scatter_base_") if strategy == "fsdp2" else ("allreduce_", "allgather_")
        assert all(calls.count(name) > TROUBLE for name in hooks), "calls were missed"
        first, last = (torch.load(tmp_path / f"{scenario}_{rank}.pt") for rank in (0, SIZE - 1))
        assert UNEQUAL[scenario](first, last), scenario
        finished = last["updates"]
        assert finished == {"judge_dies": TROUBLE, "sigterm": TROUBLE + 1, "not_finite": UPDATES + 1}.get(
            scenario, UPDATES
        )
        saved = -1 if scenario == "disk_full" else finished
        assert first["saved"] == last["saved"] == saved, "saved where it ended, on all ranks"
        if strategy == "fsdp2":
            assert first["held"] > 0 == last["held"], "a rank that does not write holds a copy of what is saved"
        for name, weight in first["weights"].items():
            assert weight.isfinite().all() and torch.equal(weight, last["weights"][name]), name


def parting(folder: Path, scenario: str) -> str:
    """Where the calls of the ranks part; empty if they do not."""
    files = [folder / f"{scenario}_{rank}.txt" for rank in range(SIZE)]
    calls = [file.read_text().splitlines() if file.is_file() else [] for file in files]
    longest = max(map(len, calls))
    rows = [[some[n] if n < len(some) else "nothing" for some in calls] for n in range(longest)]
    return next((f"{scenario}: call {n} is {' | '.join(row)}" for n, row in enumerate(rows) if len({*row}) > 1), "")
