"""Every YAML in configs/ says in a comment how it is used, and that command line builds what it names.

Nothing is loaded or trained: constructors are light, weights come when training is set up.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from project.benchmarks.base import Benchmark
from project.cli.lightning_cli import ProjectCLI
from project.data.prompts import read_prompts
from project.rewards.base import Reward
from project.study.plan import read_study
from tests.helpers import ROOT

FILES = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "configs").rglob("*.yaml"))
LIGHTNING = ("fit", "validate", "test", "predict")


class BuiltCLI(ProjectCLI):
    """Parses and builds, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def commands(file: str) -> list[list[str]]:
    """Arguments of the `python -m project ...` lines in a file's comments."""
    lines = re.findall(r"^#\s+python -m project (.+)$", Path(file).read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def build(arguments: list[str], tmp_path: Path) -> BuiltCLI:
    return BuiltCLI([*arguments, f"--run.root={tmp_path}"])


def test_there_are_configurations() -> None:
    assert "configs/shapes/demo.yaml" in FILES


@pytest.mark.parametrize("file", FILES)
def test_the_file_says_how_it_is_used(file: str) -> None:
    named = [command for command in commands(file) if file in command]
    assert named, f"{file}: say in a comment how it is used, '#   python -m project fit --config {file}'"
    for command in commands(file):
        for argument in command:
            if argument.endswith(".yaml"):
                assert Path(argument).is_file(), f"{file}: its comment names {argument}, which is not there"


BUILT = [
    # A study builds every arm: the files of its arms are built by themselves.
    pytest.param(file, marks=pytest.mark.slow) if "/studies/" in file and not file.endswith("/demo.yaml") else file
    for file in FILES
]


@pytest.mark.parametrize("file", BUILT)
def test_its_command_builds_what_it_names(file: str, tmp_path: Path) -> None:
    for command in commands(file):
        if file not in command:
            continue
        if command[0] == "study":
            study = read_study(file)
            for arm in study.arms.values():
                options = [f"--{key}={value}" for key, value in {**study.overrides, **arm.overrides}.items()]
                check(build(["fit", *(f"--config={config}" for config in arm.configs), *options], tmp_path))
            continue
        if command[0] in ("bench", "plan"):
            command = ["fit", *(word for word in command if word == "--config" or word.endswith(".yaml"))]
        assert command[0] in LIGHTNING, f"{file}: {command[0]} reads no YAML"
        check(build(command, tmp_path))


def check(cli: BuiltCLI) -> None:
    assert isinstance(cli.model, LightningModule)
    assert isinstance(cli.datamodule, LightningDataModule)
    assert isinstance(cli.trainer, Trainer)
    if hasattr(cli.model, "make_optimizer"):
        optimizer = cli.model.make_optimizer([torch.nn.Parameter(torch.zeros(2))])
        assert isinstance(optimizer, torch.optim.Optimizer)
        if scheduler := getattr(cli.model, "make_scheduler", None):
            assert isinstance(scheduler(optimizer), torch.optim.lr_scheduler.LRScheduler)
    named = cli.config[cli.subcommand]
    for key, kind in (("rewards", Reward), ("benchmarks", Benchmark)):
        made = [callback for callback in cli.trainer.callbacks if isinstance(callback, kind)]
        assert len(made) == len(named[key]), f"{key} of the file must all be among the trainer's callbacks"
    for prompts in getattr(cli.datamodule, "files", {}).values():
        for file in prompts.values() if isinstance(prompts, dict) else [prompts]:
            assert file is None or not file.startswith("data/") or read_prompts(file), f"there is no {file}"


SWAPS: dict[str, Any] = {
    "sampler": (
        {"model": {"init_args": {"sampler": {"transition": {"class_path": "project.samplers.FlowCPS"},
                                             "schedule": {"num_steps": 8}, "window": {"range": [0, 4]}}}}},
        lambda cli: type(cli.model.sampler.transition).__name__ == "FlowCPS" and cli.model.sampler.evaluations == 7,
    ),
    "optimizer": (
        {"model": {"init_args": {"optimizer": {"class_path": "bitsandbytes.optim.AdamW8bit",
                                               "init_args": {"lr": 1.0e-3}}}}},
        lambda cli: cli.model.make_optimizer([torch.nn.Parameter(torch.zeros(2))]).param_groups[0]["lr"] == 1e-3,
    ),
    "reward": (
        {"rewards": [{"class_path": "project.rewards.random.RandomReward", "init_args": {"seed": 5}}]},
        lambda cli: [c.seed for c in cli.trainer.callbacks if isinstance(c, Reward)] == [5],
    ),
    "objective": (
        {"model": {"init_args": {"objective": {"class_path": "project.objectives.grpo.GRPO",
                                               "init_args": {"kl_text": 0.5}}}}},
        lambda cli: cli.model.objective.needs.reference,
    ),
    "lora": (
        {"model": {"init_args": {"trainable": {"lora": {"rank": 4}}}}},
        lambda cli: cli.model.trainable.lora.rank == 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("part", SWAPS)
def test_a_part_is_swapped_by_yaml_alone(part: str, tmp_path: Path) -> None:
    overlay, holds = SWAPS[part]
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    cli = build(["fit", "--config=configs/shapes/demo.yaml", f"--config={tmp_path}/overlay.yaml"], tmp_path)
    assert holds(cli)
