"""The recipe for BAGEL-7B, run on the reference checkpoint: the same YAML, smaller pictures and groups."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from project.__main__ import main
from project.models.bagel.config import BagelConfig


def small_size(checkpoint):
    """Height and width [pixels] of 4 x 6 latent tokens, as far as the position table goes."""
    config = BagelConfig.from_directory(checkpoint)
    rows, columns = (min(n, config.max_latent_size) for n in (4, 6))
    return {"height": rows * config.pixels_per_latent, "width": columns * config.pixels_per_latent}


@pytest.mark.parametrize("overlay", [[], ["configs/bagel/rt2i_kl.yaml"]])
def test_two_updates(bagel_fixture, tmp_path, overlay):
    small = {
        "trainer": {"accelerator": "cpu", "max_steps": 2, "enable_progress_bar": False, "callbacks": []},
        "rewards": [{"class_path": "project.rewards.random.RandomReward"}],
        "run": {"root": str(tmp_path), "name": "small"},
        "model": {
            "init_args": {
                "policy": {"init_args": {"directory": str(bagel_fixture.directory)}},
                "num_generations": 2,
                "task": {"init_args": {**small_size(bagel_fixture.directory), "max_tokens": 4}},
            }
        },
        "data": {"init_args": {"train": str(tmp_path / "train.jsonl"), "prompts_per_update": 2}},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    rows = [{"prompt": text} for text in ("a small red cube", "a tree", "a blue table", "the sky")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["configs/bagel/rt2i.yaml", *overlay, str(tmp_path / "small.yaml")]
    assert main(["fit", *(f"--config={file}" for file in files)]) == 0
    last = tmp_path / "small/version_0/checkpoints/last.ckpt"
    state = torch.load(last, weights_only=True)
    assert state["updates"] == 2
    assert all("lora_" in name and tensor.dtype == torch.float32 for name, tensor in state["state_dict"].items())
    assert any(tensor.any() for name, tensor in state["state_dict"].items() if "lora_B" in name)


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
    assert main(["bench", *arguments, "--random-weights", "--updates", "1", *peak]) == 0
    figures = json.loads(out.read_text())
    (shares,) = figures["peak_shares"].values()
    assert {"rollout_text", "rollout_image", "replay", "backward", "total"} == shares.keys()
    assert all(0 < share < 1 for share in shares.values()), "one core of a CPU is slower than 0.1 TFLOP/s"
    assert "share of the matrix peak of 0.1 TFLOP/s" in capsys.readouterr().out
