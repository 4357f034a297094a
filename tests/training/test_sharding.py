"""FSDP2 by the flag: runs go on exactly, and with another number of ranks; checkpoints are those of one process.

That it trains as one process does is shown in tests/test_module.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.helpers import ROOT, tiny_run

JUDGE = "project.shapes.judge.DetectorJudge"
KEEP = ["--trainer.callbacks+=project.callbacks.SaveLast", "--trainer.callbacks.keep_every_n_updates=2"]
EMA = ["--trainer.callbacks+=project.callbacks.EMA"]


def fit(world: Path, name: str, *options: str) -> dict[str, Any]:
    """Trains in processes of its own; what `last.ckpt` holds then."""
    command = [sys.executable, "-m", "project", *tiny_run.command(world, name, JUDGE, *options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return checkpoint(world, name)


def checkpoint(world: Path, name: str, file: str = "last.ckpt") -> dict[str, Any]:
    return torch.load(world / f"runs/{name}/version_0/checkpoints/{file}", weights_only=True)


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from tensors(inner, f"{name}/{place}")


def test_a_sharded_run_goes_on_exactly_and_in_one_process_too(tmp_path: Path) -> None:
    world = tiny_run.write_world(tmp_path)
    steps = ["--trainer.max_steps=4", *EMA, *KEEP]
    sharded = [*steps, "--trainer.strategy=fsdp2", "--trainer.devices=2"]
    whole = dict(tensors(fit(world, "whole", *sharded)))
    alone = dict(tensors(fit(world, "alone", *steps)))
    for name in ("again", "other"):
        folder = world / f"runs/{name}/version_0"
        shutil.copytree(world / "runs/whole/version_0", folder)
        shutil.copy(folder / "checkpoints/update_2.ckpt", folder / "checkpoints/last.ckpt")
    again = dict(tensors(fit(world, "again", *sharded, "--ckpt_path=last")))
    other = dict(tensors(fit(world, "other", *steps, "--ckpt_path=last")))
    assert whole.keys() == alone.keys() == again.keys() == other.keys()
    assert any("average" in name for name in whole) and any("exp_avg" in name for name in whole)
    for name, value in whole.items():
        assert torch.equal(again[name], value), name
        torch.testing.assert_close(alone[name], value, atol=2e-5, rtol=1e-3, msg=name)
        torch.testing.assert_close(other[name], value, atol=2e-5, rtol=1e-3, msg=name)
