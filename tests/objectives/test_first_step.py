"""The first optimizer step on a rollout in training: which one it is, and its gradient in mixed precision."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from project.models.lora import LoRA
from project.objectives.base import ClipWidths, LossOutputs, Objective
from project.objectives.grpo import GRPO
from tests.helpers.policies import TinyBagel
from tests.helpers.tiny_module import make_module, plain_descent, train


class Narrow(TinyBagel):
    """In bf16, as the frozen base of BAGEL-7B is."""

    def load(self):
        return super().load().to(torch.bfloat16)


class Noisy(GRPO):
    """GRPO that finds other old log-probabilities than the policy has: noise of many clip widths."""

    def __call__(self, inputs):
        old_RK = inputs.replay.old_image_log_prob_RK
        noise_RK = 1e-3 * torch.randn(old_RK.shape, generator=torch.Generator().manual_seed(5))
        replay = dataclasses.replace(inputs.replay, old_image_log_prob_RK=old_RK + noise_RK)
        return super().__call__(dataclasses.replace(inputs, replay=replay))


class PolicyGradient(Objective):
    """-A log p of each trained step, and of the mean over a text's tokens: what one unclipped step is."""

    clip_widths = ClipWidths()

    def __call__(self, inputs):
        replay, counts = inputs.replay, inputs.counts
        image_RK = inputs.image_advantage_B[replay.image_sample_R][:, None] * replay.image_log_prob_RK
        text_RT = inputs.text_advantage_B[replay.text_sample_R][:, None] * replay.text_log_prob_RT
        loss = -(image_RK * replay.step_mask_RK).sum() / counts.steps
        return LossOutputs(loss=loss - (text_RT * replay.token_mask_RT).sum() / counts.tokens)


def moved(objective):
    """How far one step of plain descent moves the adapters of what draws, in mixed precision; and what was logged."""
    module = make_module(
        policy=Narrow(),
        objective=objective,
        optimizer=plain_descent,
        gradient_clip=1e9,
        micro_batch_size=4,
        lora=LoRA(rank=4, alpha=8, init="gaussian"),
    )
    torch.manual_seed(7)
    trainer = train(module, updates=1, precision="bf16-mixed")
    steps = [p.detach().flatten() for n, p in module.named_parameters() if "moe_gen.lora_B" in n]  # from zero
    return torch.cat(steps), trainer.callback_metrics


def test_in_mixed_precision_the_step_is_the_policy_gradient_whatever_the_noise():
    wanted, _ = moved(PolicyGradient())
    one, logged = moved(Noisy(first_step_ratio="one"))
    measured, also = moved(Noisy(first_step_ratio="measured"))
    torch.testing.assert_close(one, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())
    assert (measured - wanted).norm() > 0.1 * wanted.norm(), "proves nothing: the clip drops no term"
    for figures in (logged, also):
        assert figures["clip_fraction/image"] > 0.2 and figures["on_policy/ratio_error/image"] > 1e-4


@pytest.mark.parametrize("per_rollout", [1, 2])
def test_the_module_says_which_step_is_the_first(per_rollout):
    seen = []

    class Seen(GRPO):
        def __call__(self, inputs):
            seen.append(inputs.first)
            return super().__call__(inputs)

    train(make_module(objective=Seen(), per_rollout=per_rollout, micro_batch_size=12), updates=2)
    assert seen == [True, False][:per_rollout] * 2
