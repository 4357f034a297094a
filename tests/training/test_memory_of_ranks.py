"""What a rank's memory peaks at under ddp and under fsdp2: all weights of a model of some hundred MB, on CPUs."""

from __future__ import annotations

import pytest

from tests.helpers.ranks_memory import buckets, planned, table


@pytest.mark.slow
def test_a_sharded_rank_peaks_where_the_plan_says() -> None:
    peaks = table()
    for strategy in ("ddp", "fsdp2"):
        plan = planned(strategy)
        for rank in peaks[f"{strategy}, new"]:
            for phase, size in plan.items():
                # The buckets of ddp are there, but no gradient is ever put into them: the CPU's pages stay untouched.
                assert rank[phase] == pytest.approx(size - buckets(strategy), rel=0.2), (strategy, phase, rank)
    for first, last in zip(peaks["fsdp2, new"], peaks["ddp, new"], strict=True):
        assert max(first["rollout"], first["update"]) < 0.85 * max(last["rollout"], last["update"])
    assert peaks["fsdp2, new"][1]["save"] < 1.1 * peaks["fsdp2, new"][1]["rollout"], "only rank 0 holds what is saved"
