"""The guides to a run name metrics that runs log, and settings that runs have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.helpers import ROOT, tiny_run

WHAT_TO_DO = "project/callbacks/what_to_do.md"
GUIDES = (WHAT_TO_DO, "project/callbacks/README.md", "configs/bagel/README.md", "configs/bagel/cluster.md")
PLACEHOLDERS = ("TAG", "PART", "...", "*")
ON_A_GPU = {"memory/other", "memory/reserved"}
"""Logged there beside a `memory/PHASE` for each `time/PHASE`."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """A run in which as much as possible is logged: names of its metrics, and of its settings."""
    world = tiny_run.write_world(tmp_path_factory.mktemp("guide"))
    judge = {"judge": "project.shapes.DetectorJudge", "every_n_updates": 1}
    gold = {"class_path": "project.callbacks.GoldJudge", "init_args": judge}
    gate = {"class_path": "project.callbacks.OnPolicyGate"}
    changes = {
        "trainer": {"limit_val_batches": 1.0, "callbacks": [gate, gold]},
        "benchmarks": [{"class_path": "project.benchmarks.MeanReward"}],
        "model": {"init_args": {"overlap": True, "objective": {"init_args": {"kl_text": 0.1, "kl_image": 0.1}}}},
        "data": {"init_args": {"val": f"{world / 'train.jsonl'}[:2]"}},
    }
    (world / "more.yaml").write_text(yaml.safe_dump(changes))
    slow, files = "tests.helpers.slow_judge.SlowJudge", f"--config={world / 'more.yaml'}"
    assert tiny_run.fit(world, "run", slow, files, "--trainer.max_steps=1") == 0
    at_once = ("--trainer.max_steps=2", "--ckpt_path=last", "--model.init_args.overlap=false")
    assert tiny_run.fit(world, "run", slow, files, *at_once) == 0
    folder = world / "runs/run/version_0"
    logged = set((folder / "metrics.csv").read_text().partition("\n")[0].split(","))
    phases = {name.replace("time/", "memory/") for name in logged if name.startswith("time/")}
    return logged | phases | ON_A_GPU, set(keys(yaml.safe_load((folder / "config.yaml").read_text())))


def keys(value: Any, name: str = "") -> Iterator[str]:
    yield name
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from keys(inner, f"{name}.{key}")


@pytest.mark.parametrize("guide", GUIDES)
def test_metrics_that_are_named_are_logged(guide: str, run: tuple[set[str], set[str]]) -> None:
    logged, _ = run
    words = re.findall(r"`([a-z_]+/[\w.*]+(?:/[\w.*]+)*)`", without_blocks(guide))
    elsewhere = ("runs/", "signal/", "noise_share/", "checkpoints/")
    named = [w for w in words if not w.startswith(elsewhere) and not (ROOT / w.partition("/")[0]).is_dir()]
    assert guide != WHAT_TO_DO or len(set(named)) > 20
    for name in named:
        stem = name
        for placeholder in PLACEHOLDERS:
            stem = stem.removesuffix(placeholder)
        found = name in logged if stem == name else any(other.startswith(stem) for other in logged)
        assert found, f"{guide}: {name} is in none of {sorted(logged)}"


def test_settings_that_are_named_are_there(run: tuple[set[str], set[str]]) -> None:
    _, settings = run
    named = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", without_blocks(WHAT_TO_DO)))
    assert len(named) > 15
    for name in named:
        assert any(f".{name}" == key or f".model.init_args.{name}" == key for key in settings), name


def without_blocks(guide: str) -> str:
    return re.sub(r"^```.*?^```$", "", (ROOT / guide).read_text(encoding="utf-8"), flags=re.M | re.S)
