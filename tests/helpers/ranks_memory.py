"""What a rank's memory peaks at, under ddp and under fsdp2, beside what `plan` says: all weights of a larger model.

    python -m tests.helpers.ranks_memory

Two CPU processes for each strategy. Resident memory above that before the model was loaded, in MB: the highest of each
phase. Activations are small here: pictures are of 8 x 8 pixels.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from project.callbacks.checkpoint import SaveLast
from project.models.bagel import Bagel
from project.models.base import ModelSource
from project.module import AlphaGRPO
from project.planning.run_plan import RunPlan, plan_of
from tests.helpers import ranks
from tests.helpers.policies import TinyBagel, tiny_bagel
from tests.helpers.tiny_module import PROMPTS, make_module, train

SIZE = 2
MB = 1e6


class Medium(ModelSource):
    """BAGEL's architecture with some hundred MB of weights, random."""

    def load(self) -> Bagel:
        torch.manual_seed(0)
        return self._made()

    def outline(self) -> Bagel:
        with torch.device("meta"):
            return self._made()

    def _made(self) -> Bagel:
        small = tiny_bagel()
        config = dataclasses.replace(
            small.config, hidden_size=768, intermediate_size=2048, num_layers=6, num_heads=12, num_kv_heads=4
        )
        return Bagel(config, small.autoencoder, small.tokenizer, small.defaults)


def resident(key: str) -> float:
    """Bytes: of this process `VmRSS`, or at most since `forget` `VmHWM`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith(f"{key}:"))


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Peaks:
    """The highest resident memory of each phase, above that at the beginning."""

    def __init__(self) -> None:
        self.before = resident("VmRSS")
        self.found: dict[str, float] = {}

    def around(self, owner: Any, name: str) -> None:
        """Makes a method a phase of its own."""
        method: Callable[..., Any] = getattr(owner, name)

        def observed(*arguments: Any, **options: Any) -> Any:
            forget()
            result = method(*arguments, **options)
            self.found[name] = max(self.found.get(name, 0.0), resident("VmHWM") - self.before)
            return result

        setattr(owner, name, observed)


def measured(strategy: str, folder: Path, updates: int) -> dict[str, float]:
    """Peaks of this rank in a run that is saved at its end, and goes on from what is there already."""
    # What is imported on the way is no part of it.
    tiny = make_module(policy=TinyBagel(), num_generations=2)
    train(tiny, updates=1, batches=[PROMPTS[:2]], devices=SIZE, strategy=strategy, use_distributed_sampler=False)
    module, saving, last = made(), SaveLast(every_n_updates=100), folder / "checkpoints/last.ckpt"
    peaks = Peaks()
    for owner, name in ((module, "configure_model"), (module, "rollout"), (module, "update"), (saving, "save")):
        peaks.around(owner, name)
    train(
        module, updates=updates, callbacks=[saving], batches=[PROMPTS[:2]] * 2, enable_checkpointing=True,
        default_root_dir=folder, devices=SIZE, strategy=strategy, use_distributed_sampler=False,
        ckpt_path=last if last.exists() else None,
    )  # fmt: skip
    return peaks.found


def made() -> AlphaGRPO:
    return make_module(policy=Medium(), num_generations=2, micro_batch_size=1)


def plan(strategy: str) -> RunPlan:
    return plan_of(made(), prompts=2, prompt_tokens=4, ranks=SIZE, sharded=strategy == "fsdp2")


def planned(strategy: str) -> dict[str, float]:
    """Bytes of the phases by `plan`."""
    peaks = plan(strategy).memory().peaks
    return {"rollout": peaks["rollout"], "update": peaks["replay"]}


def buckets(strategy: str) -> float:
    """Bytes of the buckets of the gradients, by `plan`."""
    return plan(strategy).memory().always.get("buckets of the gradients", 0.0)


def table() -> dict[str, list[dict[str, float]]]:
    """Peaks of both strategies, of a new run and of one that goes on, a row for each rank."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)  # or the allocator keeps much of what is freed
    found = {}
    for strategy in ("ddp", "fsdp2"):
        with tempfile.TemporaryDirectory() as folder:
            for run, updates in (("new", "2"), ("goes on", "3")):
                said = ranks.run(SIZE, __spec__.name, strategy, folder, updates, timeout=900)
                found[f"{strategy}, {run}"] = [json.loads(words.strip().splitlines()[-1]) for words in said]
    return found


if __name__ == "__main__":
    if "LOCAL_RANK" in os.environ:
        found = measured(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
        distributed.barrier()
        print(json.dumps(found), flush=True)
        sys.exit()
    weights = sum(p.numel() * p.element_size() for p in Medium().outline().parameters())
    print(f"weights: {weights / MB:.0f} MB")
    for run, rows in table().items():
        strategy = run.partition(",")[0]
        for rank, peaks in enumerate(rows):
            parts = [f"{name} {size / MB:5.0f}" for name, size in peaks.items()]
            print(f"{run:<16} rank {rank}: {'  '.join(parts)}")
        parts = [f"{name} {size / MB:5.0f}" for name, size in planned(strategy).items()]
        print(f"{'':<8} the plan says: {'  '.join(parts)}  (of it buckets {buckets(strategy) / MB:.0f})")
