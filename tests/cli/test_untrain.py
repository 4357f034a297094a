"""`untrain`: some parts of a trained model as they were before, the others as they are."""

from __future__ import annotations

import json

import pytest
import torch

from project.__main__ import main
from project.training.checkpoints import load_policy
from tests.helpers import tiny_run

PARTS = ["embed_tokens", "moe_gen"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tiny_run.write_world(tmp_path_factory.mktemp("world"))
    ema = '{"class_path": "project.callbacks.ema.EMA", "init_args": {"decay": 0.5}}'
    options = ("--trainer.max_steps=2", f"--trainer.callbacks=[{ema}]")
    assert tiny_run.fit(folder, "run", "project.shapes.judge.DetectorJudge", *options) == 0
    return folder


@pytest.fixture(scope="module")
def last(world):
    return world / "runs/run/version_0/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def untrained(last):
    out = last.with_name("untrained.ckpt")
    assert main(["untrain", "--checkpoint", str(last), "--parts", *PARTS, "--out", str(out)]) == 0
    assert {file.name for file in last.parent.iterdir()} == {"last.ckpt", "untrained.ckpt"}
    return out


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_the_parts_are_as_before_training_and_the_others_as_after(world, last, untrained, weights):
    start = load_policy(str(world / "umm")).state_dict()
    trained = load_policy(str(last), weights).state_dict()
    found = load_policy(str(untrained), weights).state_dict()
    restored = 0
    for name, tensor in found.items():
        before = any(part in name for part in PARTS)
        assert torch.equal(tensor, (start if before else trained)[name]), name
        restored += before and not torch.equal(start[name], trained[name])
    assert restored > 10, "training moved hardly anything: nothing is proved here"


def test_it_can_be_validated(world, untrained):
    (world / "few.jsonl").write_text("".join((world / "train.jsonl").read_text().splitlines(keepends=True)[:2]))
    config = untrained.parents[1] / "config.yaml"
    options = [f"--data.init_args.val={world / 'few.jsonl'}", "--trainer.limit_val_batches=1.0"]
    shapes = '[{"class_path": "project.shapes.benchmark.ShapesBenchmark"}]'
    command = ["validate", f"--config={config}", f"--ckpt_path={untrained}", *options, f"--benchmarks={shapes}"]
    assert main(command) == 0
    results = max((world / "runs").rglob("results.json"), key=lambda file: file.stat().st_mtime)
    assert json.loads(results.read_text())["after"] is not None


def test_what_cannot_be(last, untrained, tmp_path, capsys):
    def message(*options):
        capsys.readouterr()
        assert main(["untrain", *options]) != 0
        return capsys.readouterr().err

    new = str(tmp_path / "new.ckpt")
    assert "exists" in message("--checkpoint", str(last), "--parts", "moe_gen", "--out", str(untrained))
    assert "no trained parameter matches" in message("--checkpoint", str(last), "--parts", "moe_gem", "--out", new)
    assert "regular expression" in message("--checkpoint", str(last), "--parts", "(", "--out", new)
    assert "no checkpoint" in message("--checkpoint", str(tmp_path / "none.ckpt"), "--parts", "moe", "--out", new)
    (tmp_path / "half.ckpt").write_bytes(last.read_bytes()[:1000])
    assert "half-written" in message("--checkpoint", str(tmp_path / "half.ckpt"), "--parts", "moe", "--out", new)
    assert not (tmp_path / "new.ckpt").exists()
