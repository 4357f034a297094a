"""A run's checkpoint under a configuration that it does not fit: told, not measured, and the run stays whole."""

from __future__ import annotations

import torch
import yaml

from project.__main__ import main
from project.training.checkpoints import load_policy
from tests.helpers import tiny_run

JUDGE = "project.shapes.judge.DetectorJudge"


def test_it_is_refused_and_the_run_stays_readable(tmp_path, capsys):
    world = tiny_run.write_world(tmp_path)
    adapters = {"lora": {"rank": 2, "alpha": 4}, "freeze": [], "parameter_groups": {}}
    (world / "lora.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"trainable": adapters}}}))
    lora = ("--config", str(world / "lora.yaml"))
    assert tiny_run.fit(world, "run", JUDGE, *lora, "--trainer.max_steps=1") == 0
    folder = world / "runs/run/version_0"
    last, config = folder / "checkpoints/last.ckpt", (folder / "config.yaml").read_text()

    # Without `lora` the base model would go on, or be measured, under the trained one's name.
    assert tiny_run.fit(world, "plain", JUDGE, "--ckpt_path", str(last), "--trainer.max_steps=2") == 1
    assert "does not fit the policy of this configuration" in capsys.readouterr().err
    (world / "few.jsonl").write_text("".join((world / "train.jsonl").read_text().splitlines(keepends=True)[:2]))
    benchmarks = '[{"class_path": "project.benchmarks.MeanReward"}]'
    measure = [f"--data.init_args.val={world / 'few.jsonl'}", "--trainer.limit_val_batches=1.0"]
    measure += [f"--benchmarks={benchmarks}"]
    (world / "without.yaml").write_text("model: {init_args: {trainable: {lora: null}}}\n")
    without = ["--config", str(world / "without.yaml"), f"--run.root={world / 'other'}"]
    assert main(["validate", f"--config={folder / 'config.yaml'}", *without, f"--ckpt_path={last}", *measure]) == 1
    assert "does not fit the policy of this configuration" in capsys.readouterr().err

    assert (folder / "config.yaml").read_text() == config
    load_policy(str(last))
    longer = ("--ckpt_path", str(last), "--trainer.max_steps=2")
    assert tiny_run.fit(world, "run", JUDGE, *lora, *longer) == 0
    changed = yaml.safe_load((folder / "config.yaml").read_text())
    assert changed["trainer"]["max_steps"] == 2, "a run that does go on tells how"


def test_a_checkpoint_that_is_not_finite_is_not_gone_on_with(tmp_path, capsys):
    world = tiny_run.write_world(tmp_path)
    assert tiny_run.fit(world, "run", JUDGE, "--trainer.max_steps=1") == 0
    last = world / "runs/run/version_0/checkpoints/last.ckpt"
    saved = torch.load(last, weights_only=True)
    name = next(name for name, tensor in saved["state_dict"].items() if tensor.numel() > 3)
    saved["state_dict"][name].view(-1)[3] = float("nan")
    torch.save(saved, last)
    assert tiny_run.fit(world, "run", JUDGE, "--ckpt_path", str(last), "--trainer.max_steps=2") == 1
    assert f"{last}: {name} holds NaN or infinite numbers" in capsys.readouterr().err
