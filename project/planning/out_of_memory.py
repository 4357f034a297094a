"""What to do when training runs out of memory: the plan's advice in place of a traceback."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from project.module import AlphaGRPO
from project.planning.run_plan import RunPlan, plan_of, settings_of, usable

LESS = 0.9
"""Share of the planned peak that the advice stays below where the plan thought that it would fit."""
BY_HAND = (
    "a smaller model.init_args.update.micro_batch_size, model.init_args.update.steps_per_backward=1, fewer samples "
    "drawn together, smaller pictures, or model.init_args.policy.init_args.gradient_checkpointing=true need less"
)


class OutOfMemory(ValueError):
    """Training ran out of memory; the message says what to change."""


def out_of_memory(error: torch.OutOfMemoryError, model: LightningModule, trainer: Trainer, data: Any) -> OutOfMemory:
    """The error to raise in its place. Nothing is allocated on the device."""
    update = getattr(model, "updates", 0)
    said = str(error).splitlines()[0] if str(error) else "the device said no more"
    head = f"out of memory in update {update} ({said})"
    try:
        advice = _advice(model, trainer, data)
    except (ValueError, FileNotFoundError, AttributeError):  # a model that has no plan
        advice = BY_HAND
    return OutOfMemory(f"{head}: {advice}")


def _advice(model: LightningModule, trainer: Trainer, data: Any) -> str:
    if not isinstance(model, AlphaGRPO):
        return BY_HAND
    plan = plan_of(
        model,
        trainer.precision,
        prompts=data.prompts_per_update,
        ranks=trainer.world_size,
        sharded=isinstance(trainer.strategy, ModelParallelStrategy),
    )
    limit = LESS * plan.memory().peak
    device = trainer.strategy.root_device
    if device.type == "cuda":
        limit = min(limit, usable(torch.cuda.get_device_properties(device).total_memory))
    return advised(plan, limit, model.task)


def advised(plan: RunPlan, limit: float, task: Any) -> str:
    """Settings that the plan expects to need at most `limit` bytes, in words."""
    for checkpointing in dict.fromkeys((plan.how.checkpointing, True)):
        best = plan.largest_below(limit, checkpointing)
        if best is None:
            continue
        also = "" if checkpointing == plan.how.checkpointing else _CHECKPOINTING
        return (
            f"the plan expects {plan.memory().peak / 1e9:.3g} GB with the settings now; with "
            f"{settings_of(best, task)}{also} it expects {plan.memory(best, checkpointing).peak / 1e9:.3g} GB "
            "(`python -m project plan` tells the whole plan)"
        )
    return (
        "even a micro-batch of 1 and one prompt at a time need more: share the weights out (--trainer.strategy fsdp2, "
        "with several GPUs), or take smaller pictures, fewer reasoning tokens (max_tokens) or fewer trained steps "
        "(sampler.window.size); "
        "`python -m project plan` tells what needs how much"
    )


_CHECKPOINTING = " --model.init_args.policy.init_args.gradient_checkpointing=true"
