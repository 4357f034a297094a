"""A run's checkpoint under a configuration that it does not fit: told, not measured, and the run stays whole."""

from __future__ import annotations

import re

import pytest
import torch
import yaml

from project.__main__ import main
from project.shapes.umm import NewEmbeddedModel
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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A world with a run of one update with adapters of rank 2; its checkpoint."""
    world = tiny_run.write_world(tmp_path_factory.mktemp("world"))
    assert tiny_run.fit(world, "run", JUDGE, *adapters(world, 2), "--trainer.max_steps=1") == 0
    return world, world / "runs/run/version_0/checkpoints/last.ckpt"


def adapters(world, rank, **more):
    trainable = {"lora": {"rank": rank, "alpha": 4}, "freeze": [], "parameter_groups": {}} | more
    (world / f"lora_{rank}.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"trainable": trainable}}}))
    return ["--config", str(world / f"lora_{rank}.yaml")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 4}, r"\(adapters of rank 2 there, of rank 4 here\): \d+ parameters differ.*has shape \(2, 32\), not"),
        ({"rank": 2, "freeze": ["layers.0.*lora_A"]}, r"train different parameters \(\d+, e.g. policy.*0.*lora_A"),
        ({"rank": 2, "parameter_groups": {"lora_A": {"lr": 1.0e-3}}}, r"has \[lora_A\], but .* holds .* state of \[\]"),
        (["--model.init_args.optimizer=torch.optim.SGD", "--model.init_args.optimizer.init_args.lr=0.1"],
         r"class_path is torch.optim.SGD, but .* holds the state of torch.optim.AdamW"),
    ],
    ids=["rank", "frozen", "groups", "optimizer"],
)  # fmt: skip
def test_what_cannot_go_on_is_refused_with_both_names(run, options, said, capsys):
    world, last = run
    changes = adapters(world, **options) if isinstance(options, dict) else [*adapters(world, 2), *options]
    before = {file: file.read_bytes() for file in last.parent.parent.rglob("*") if file.is_file()}
    assert tiny_run.fit(world, "run", JUDGE, *changes, "--ckpt_path=last", "--trainer.max_steps=2") == 1
    assert re.search(said, capsys.readouterr().err)
    assert before == {file: file.read_bytes() for file in before}, "nothing was overwritten"


def test_a_larger_model_is_refused_with_both_shapes(run, capsys):
    world, last = run
    larger = NewEmbeddedModel(hidden_size=64, intermediate_size=48, num_layers=2, autoencoder=str(world / "ae"))
    larger.load().save_pretrained(world / "larger")
    policy = f"--model.init_args.policy.init_args.directory={world / 'larger'}"
    changes = [*adapters(world, 2), policy, f"--ckpt_path={last}", "--trainer.max_steps=2"]
    assert tiny_run.fit(world, "run", JUDGE, *changes) == 1
    assert re.search(r"\d+ parameters differ, e.g. .* has shape \(.*32.*\), not \(.*64.*\)", capsys.readouterr().err)


def test_settings_that_the_checkpoint_holds_have_no_effect(run, caplog):
    world, last = run
    options = [*adapters(world, 2), "--ckpt_path=last", "--trainer.max_steps=2", "--model.init_args.optimizer.lr=0.5"]
    assert tiny_run.fit(world, "run", JUDGE, *options, "--model.init_args.num_generations=4") == 0
    said = next(message for message in caplog.messages if message.startswith("other settings"))
    assert "  model.init_args.num_generations: 4, was 2" in said.splitlines()
    assert "  model.init_args.optimizer.init_args.lr: 0.5, was 0.0002 (no effect: the checkpoint's is taken)" in said
    groups = torch.load(last, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert all(group["initial_lr"] == 2e-4 for group in groups)
