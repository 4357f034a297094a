"""`Opening`: what a run trains, with which rewards, on how many prompts, and where it writes, before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from project.benchmarks.base import Benchmark
from project.core.run_folder import run_folder
from project.datamodule import evaluated_prompts
from project.rewards.base import Reward

MOST = 4
"""Parts of a model that are named."""


class Opening(Callback):
    """Says in a few lines what `fit` is about to do."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        rank_zero_info("\n".join(f"{name + ':':<9} {text}" for name, text in lines(trainer, pl_module, folder).items()))


def lines(trainer: Trainer, module: LightningModule, folder: Path) -> dict[str, str]:
    """What is said, by what it is about."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    rewards = ", ".join(_reward(callback) for callback in callbacks if isinstance(callback, Reward))
    benchmarks = ", ".join(callback.name for callback in callbacks if isinstance(callback, Benchmark))
    evaluated = len(evaluated_prompts(trainer))
    return {
        "trains": _trained(module),
        **({"rewards": rewards} if rewards else {}),
        "data": _data(trainer, module) + (f"; {evaluated} to evaluate on ({benchmarks})" if evaluated else ""),
        "writes": str(folder),
        "watch": f"tensorboard --logdir {folder}",
    }


def _trained(module: LightningModule) -> str:
    """How many parameters of which parts are trained, and which parts stay as they are."""
    trained, frozen = dict[str, int](), dict[str, int]()
    for name, parameter in module.named_parameters():
        words = name.removeprefix("policy.").split(".")
        part = "LoRA adapters" if any("lora" in word for word in words) else words[0]
        of = trained if parameter.requires_grad else frozen
        of[part] = of.get(part, 0) + parameter.numel()
    number, everything = sum(trained.values()), sum(trained.values()) + sum(frozen.values())
    policy = type(getattr(module, "policy", None) or module).__name__
    text = f"{count(number)} of {count(everything)} parameters of {policy}: {_parts(trained)}"
    return text + (f"; frozen: {_parts(frozen)}" if frozen else "")


def _parts(sizes: Mapping[str, int]) -> str:
    if not sizes:
        return "nothing"
    largest = sorted(sizes, key=lambda name: -sizes[name])
    named = ", ".join(f"{name} {count(sizes[name])}" for name in largest[:MOST])
    return f"{named} and {len(largest) - MOST} more" if len(largest) > MOST else named


def _reward(reward: Reward) -> str:
    judge: Any = getattr(reward, "judge", None)
    weight = f" x {reward.weight:g}" if reward.weight != 1 else ""
    by = f" (judge: {getattr(judge, 'name', type(judge).__name__)})" if judge is not None else ""
    return f"{type(reward).__name__}{weight}{by}"


def _data(trainer: Trainer, module: LightningModule) -> str:
    data = trainer.datamodule  # type: ignore[attr-defined]
    by_stage = getattr(data, "prompts", None)
    prompts = by_stage.get("train") if isinstance(by_stage, Mapping) else None
    if prompts is None:
        return type(data).__name__
    samples = getattr(module, "num_generations", None)
    text = f"{len(prompts)} prompts, {data.prompts_per_update} an update"
    return f"{text} x {samples} samples" if samples else text


def count(number: float) -> str:
    """1234567 -> "1.2 M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
