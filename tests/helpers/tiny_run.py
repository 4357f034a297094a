"""A whole `fit` as a user runs it, of seconds: a tiny model, 8 prompts (4 updates are an epoch), no evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from project.__main__ import main
from project.models.bagel.patch_autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from project.shapes.umm import NewEmbeddedModel
from tests.helpers import ROOT


def write_world(folder: Path) -> Path:
    """A tiny checkpoint, 8 prompts, and `tiny.yaml`: what differs from the demo, less the reward."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        PatchAutoencoder(PatchAutoencoderConfig(width=8, num_res_blocks=1)).save(folder / "ae")
        new = NewEmbeddedModel(hidden_size=32, intermediate_size=48, num_layers=2, autoencoder=str(folder / "ae"))
        model = new.load()
        # A new model draws the same whatever it is told; this one has something to say from the start.
        torch.nn.init.normal_(model.llm2vae.weight, std=0.1)
    model.save_pretrained(folder / "umm")
    rows = (ROOT / "data/shapes/train.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    (folder / "train.jsonl").write_text("\n".join(rows) + "\n")
    changes = {
        "trainer": {
            "max_steps": 5,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [],
        },
        "model": {
            "init_args": {
                "policy": {"init_args": {"directory": str(folder / "umm"), "adapter": None}},
                "num_generations": 2,
                "sampler": {"schedule": {"num_steps": 5}, "window": {"size": 2, "range": [0, 3]}},
                "lr_scheduler": {"init_args": {"steps": 100}},
            }
        },
        "data": {"init_args": {"train": str(folder / "train.jsonl"), "val": None, "prompts_per_update": 2}},
        "benchmarks": [],
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(changes))
    return folder


def fit(world: Path, name: str, judge: str, *options: str, **arguments: Any) -> int:
    """Runs `fit` into `world/runs/name/version_N`, rewarded by DVReward with a judge of this class; the exit code."""
    return main(command(world, name, judge, *options, **arguments))


def command(world: Path, name: str, judge: str, *options: str, over: Sequence[str] = (), **arguments: Any) -> list[str]:
    """What `fit` runs; `judge` may also be the class of a reward.

    `over` are files of configs/shapes that come over the demo, by name.
    """
    reward = {"class_path": judge, "init_args": arguments}
    if not judge.startswith("project.rewards."):
        reward = {"class_path": "project.rewards.dvreward.DVReward", "init_args": {"judge": reward}}
    (world / f"{name}.yaml").write_text(
        yaml.safe_dump({"run": {"name": name, "root": str(world / "runs")}, "rewards": [reward]})
    )
    house = [ROOT / f"configs/shapes/{file}.yaml" for file in ("demo", *over)]
    files = (*house, world / "tiny.yaml", world / f"{name}.yaml")
    return ["fit", *(part for file in files for part in ("--config", str(file))), *options]
