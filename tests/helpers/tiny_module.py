"""`AlphaGRPO` on a tiny dense policy, and a trainer over a few prompts: whole updates without any file or judge."""

from __future__ import annotations

import dataclasses

import torch
from lightning import Trainer

from project.module import AlphaGRPO
from project.objectives.grpo import GRPO
from project.rewards.random import RandomReward
from project.samplers.guidance import Guidance
from project.tasks.reasoning_t2i import ReasoningT2I
from project.training.settings import AdvantageSettings, UpdateSettings
from project.training.trainable import Trainable
from project.trajectory import Prompt
from tests.helpers import backbones
from tests.helpers.sampling import sde

PROMPTS = [Prompt(id=str(i), text=text) for i, text in enumerate(["a red circle", "a green square", "two red square"])]


GROUPS = {"update": UpdateSettings, "trainable": Trainable, "advantages": AdvantageSettings}


def make_module(**changes):
    """`changes` are arguments of `AlphaGRPO`, or of one of its groups of settings."""
    settings = dict(
        policy=backbones.NewDenseModel(),
        task=ReasoningT2I(height=8, width=8, max_tokens=4, top_p=1.0, guidance=Guidance(text=2.0, interval=(0.0, 1.0))),
        sampler=sde(6, 2, (0, 4)),
        objective=GRPO(),
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3),
        num_generations=4,
        micro_batch_size=5,
        seed=3,
    )
    settings |= changes
    for group, kind in GROUPS.items():
        names = {field.name for field in dataclasses.fields(kind)} & set(settings)
        settings[group] = kind(**{name: settings.pop(name) for name in names})
    return AlphaGRPO(**settings)


def train(
    module,
    updates=2,
    rewards=None,
    callbacks=(),
    batches=None,
    collate=lambda prompts: prompts,
    loader=None,
    ckpt_path=None,
    **settings,
):
    defaults = dict(
        accelerator="cpu",
        max_steps=updates * module.updating.per_rollout,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*(rewards or [RandomReward(seed=1)]), *callbacks],
    )
    trainer = Trainer(**{**defaults, **settings})
    loader = loader or torch.utils.data.DataLoader(batches or [PROMPTS] * 10, batch_size=None, collate_fn=collate)
    module.transfer_batch_to_device = lambda batch, device, index: batch
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return trainer


def plain_descent(parameters):
    """The step is the (clipped) gradient: Adam would blow up the rounding of gradients that are zero."""
    return torch.optim.SGD(parameters, lr=1.0)
