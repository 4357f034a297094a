"""A LightningModule of one parameter, with a reward and a benchmark, to test the house without a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torchmetrics import MeanMetric, Metric

from project.benchmarks.base import Benchmark
from project.objectives.base import Needs
from project.objectives.grpo import GRPO
from project.rewards.base import Reward, RewardOutput
from project.trajectory import Advantages, Group, ImageSegment, Prompt, SampleKey, Scores, TextSegment, Trajectory

GOOD = """\
seed_everything: 3
run:
  name: toy
model:
  class_path: tests.helpers.toys.Tiny
  init_args:
    net:
      class_path: tests.helpers.toys.Net
      init_args:
        depth: 2
data:
  class_path: project.datamodule.PromptDataModule
  init_args:
    train: train.txt
    val: val.txt
    prompts_per_update: 2
    eval_batch_size: 2
trainer:
  accelerator: cpu
  max_epochs: 1
  log_every_n_steps: 1
  num_sanity_val_steps: -1
  enable_progress_bar: false
  enable_model_summary: false
rewards:
  - class_path: tests.helpers.toys.Length
benchmarks:
  - class_path: tests.helpers.toys.LengthBenchmark
"""


def write_place(folder: Path) -> Path:
    """Two prompt files and `good.yaml`, a configuration of the toys."""
    (folder / "train.txt").write_text("".join(f"{'x' * n}\n" for n in range(1, 13)))
    (folder / "val.txt").write_text("a\nbb\nccc\n")
    (folder / "good.yaml").write_text(GOOD)
    return folder


def trajectory(prompt: Prompt, sample: int = 0, text: str = "red circle") -> Trajectory:
    empty = torch.zeros(0)
    return Trajectory(
        prompt=prompt,
        key=SampleKey(seed=0, update=0, prompt=prompt.id, sample=sample),
        segments=(
            TextSegment(
                ids_T=torch.arange(3), log_prob_T=torch.zeros(3), entropy_T=torch.zeros(3), finished=True, text=text
            ),
            ImageSegment(
                latents_KLD=empty,
                next_KLD=empty,
                step_K=empty,
                log_prob_K=empty,
                final_LD=empty,
                pixels_HWC=torch.full((8, 8, 3), 40 * sample, dtype=torch.uint8),
            ),
        ),
    )


def group(prompts: Sequence[Prompt], size: int = 2) -> Group:
    """Sample g of every prompt has reward g and advantage g - 0.5."""
    number = len(prompts) * size
    reward_N = torch.arange(number).remainder(size).float()
    return Group(
        trajectories=tuple(trajectory(prompt, g) for prompt in prompts for g in range(size)),
        size=size,
        scores=Scores(
            reward_N=reward_N,
            text_reward_N=torch.zeros(number),
            confidence_NQ=tuple(
                tuple(None if q else 0.25 for q in range(len(prompt.questions)))
                for prompt in prompts
                for _ in range(size)
            ),
        ),
        advantages=Advantages(image_N=reward_N - 0.5, text_N=reward_N - 0.5, valid_N=torch.ones(number) > 0),
    )


class Net(torch.nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.depth = depth
        self.weight = torch.nn.Parameter(torch.zeros(()))


class Tiny(LightningModule):
    """weight <- weight + (hash of the update's prompts); the prompts' ids go into `order`."""

    def __init__(
        self,
        net: Net,
        seed: int = 0,
        send: int = 0,
        steps: int = 1,
        lr: float = 0.1,
    ) -> None:
        super().__init__()
        if lr <= 0:
            raise ValueError(f"lr = {lr}: give a positive number")
        self.automatic_optimization = False
        self.net = net
        self.seed = seed
        self.updates = 0
        self.order: list[str] = []
        self.send = send
        self.steps = steps

    def training_step(self, prompts: Sequence[Prompt], batch_idx: int) -> dict[str, Any]:
        optimizer = self.optimizers()
        if self.send and self.updates == 2:
            os.kill(os.getpid(), self.send)
        for _ in range(self.steps):
            optimizer.zero_grad()
            self.manual_backward(-self.net.weight * sum(map(ord, "".join(p.text for p in prompts))))
            optimizer.step()
        self.order.append(",".join(p.text for p in prompts))
        self.updates += 1
        self.log("reward/mean", float(self.updates), batch_size=1)
        return {"group": group(prompts)}

    def validation_step(self, prompts: Sequence[Prompt], batch_idx: int) -> dict[str, Any]:
        return {"group": group(prompts, size=1)}

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.5)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["updates"], checkpoint["order"], checkpoint["seed"] = self.updates, self.order, self.seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.updates, self.order = checkpoint["updates"], list(checkpoint["order"])


class Length(Reward):
    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        return RewardOutput(reward_N=torch.tensor([float(len(t.prompt.text)) for t in trajectories]))


class MeanOf(Metric):
    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()

    def update(self, outcome: dict[str, Any]) -> None:
        self.mean.update(outcome["length"])

    def compute(self) -> dict[str, Any]:
        return {"length": float(self.mean.compute()), "by_kind": {"any": float(self.mean.compute())}}


class LengthBenchmark(Benchmark):
    def __init__(self, send: int = 0) -> None:
        super().__init__(MeanOf())
        self.send = send

    def measure(self, trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> list[dict[str, Any]]:
        if self.send and trajectories[0].prompt.text == "a":
            os.kill(os.getpid(), self.send)
        return [{"length": len(t.prompt.text), "reward": r} for t, r in zip(trajectories, rewards, strict=True)]


class WholeSamples(GRPO):
    """A loss that cannot be cut over trained steps."""

    @property
    def needs(self) -> Needs:
        return Needs()
