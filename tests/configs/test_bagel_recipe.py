"""The recipe for BAGEL-7B, run on the reference checkpoint: the same YAML, smaller pictures and groups."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from project.__main__ import main
from project.models.bagel.config import BagelConfig
from tests.helpers.tiny_run import write_world


def small_size(checkpoint):
    """Height and width [pixels] of 4 x 6 latent tokens, as far as the position table goes."""
    config = BagelConfig.from_directory(checkpoint)
    rows, columns = (min(n, config.max_latent_size) for n in (4, 6))
    return {"height": rows * config.pixels_per_latent, "width": columns * config.pixels_per_latent}


def small_task(size, refines, **settings):
    """What makes a task small; of `SelfReflection`, also its first pictures."""
    own = {"max_tokens": 4, **settings}
    if refines:
        return {"init_args": {**own, "first": {"init_args": {**size, "max_tokens": 4}}}}
    return {"init_args": {**own, **size}}


@pytest.mark.parametrize("overlay", ["", "t2i", "srr srr_kl", "srr mixed"])
def test_two_updates(bagel_fixture, tmp_path, overlay):
    """Trained, and measured before, between and after: only sizes and the reward are others."""
    checkpoint, size, refines = bagel_fixture.directory, small_size(bagel_fixture.directory), "srr" in overlay
    if refines:  # the reference checkpoint cannot look at pictures as small as it can draw
        checkpoint, size = write_world(tmp_path) / "umm", {"height": 64, "width": 64}
    small = {
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 2,
            "val_check_interval": 1,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "project.callbacks.SaveLast", "init_args": {"keep_every_n_updates": 1}}],
        },
        "rewards": [{"class_path": "project.rewards.random.RandomReward"}],
        "run": {"root": str(tmp_path), "name": "small"},
        "model": {
            "init_args": {
                "policy": {"init_args": {"directory": str(checkpoint)}},
                "num_generations": 2,
                "task": small_task(size, refines, **({"candidates": 2} if refines else {})),
                **({"sampler": {"schedule": {"num_steps": 17}}} if refines else {}),  # windows of [0, 15)
                "evaluation": {"task": small_task(size, refines), "schedule": {"num_steps": 5}},
            }
        },
        "data": {
            "init_args": {
                "train": str(tmp_path / "train.jsonl"),
                "val": str(tmp_path / "train.jsonl[:1]"),
                "prompts_per_update": 2,
            }
        },
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    rows = [{"prompt": text} for text in ("a small red cube", "a tree", "a blue table", "the sky")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = [f"configs/bagel/{name}.yaml" for name in ["rt2i", *overlay.split()]]
    assert main(["fit", *(f"--config={file}" for file in [*recipe, str(tmp_path / "small.yaml")])]) == 0
    folder = tmp_path / "small/version_0"
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert state["updates"] == 2 and (folder / "checkpoints/update_1.ckpt").is_file()
    assert all("lora_" in name and tensor.dtype == torch.float32 for name, tensor in state["state_dict"].items())
    assert any(tensor.any() for name, tensor in state["state_dict"].items() if "lora_B" in name)
    measured = json.loads((folder / "results.json").read_text())
    assert 0 < measured["before"]["reward"] < 1 and 0 < measured["after"]["reward"] < 1
    assert (folder / "evaluations/meanreward_1.jsonl").is_file()


def test_the_measurement_is_ready(bagel_fixture, tmp_path, capsys):
    """The command of configs/bagel/bench.yaml, on the reference checkpoint's sizes: only sizes differ on a GPU."""
    small = {
        "trainer": {"accelerator": "cpu"},
        "model": {
            "init_args": {
                "policy": {"init_args": {"directory": str(bagel_fixture.directory)}},
                "num_generations": 2,
                "task": {"init_args": {**small_size(bagel_fixture.directory), "max_tokens": 4}},
            }
        },
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    files = ["configs/bagel/rt2i.yaml", "configs/bagel/bench.yaml", str(tmp_path / "small.yaml")]
    arguments = [word for file in files for word in ("--config", file)]
    out = tmp_path / "bench.json"
    peak = ["--peak-tflops", "0.1", "--json", str(out)]
    assert main(["bench", *arguments, "--random-weights", "--updates", "1", "--count", *peak]) == 0
    figures = json.loads(out.read_text())
    (shares,) = figures["peak_shares"].values()
    assert {"rollout_text", "rollout_image", "replay", "backward", "total"} == shares.keys()
    assert all(0 < share < 1 for share in shares.values()), "one core of a CPU is slower than 0.1 TFLOP/s"
    counts = figures["counts"]["base"]
    assert counts["phases"]["backward"]["done"]["recomputed_flops"] > 0, "the recipe computes layers again"
    assert counts["phases"]["rollout_image"]["ratio"] > 1 and counts["weight_bytes_per_token"] > 0
    printed = capsys.readouterr().out
    assert "share of the matrix peak of 0.1 TFLOP/s" in printed
    assert "done/needed" in printed and "waits of the host for the device" in printed
