from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from project.objectives.grpo_image import GRPOImage
from project.objectives.guard_image import GuardImage
from tests.helpers import replays

ONES = torch.ones(replays.B, replays.K, dtype=torch.float64)


def test_the_loss_by_loops():
    made = replays.replay(spread=0.2)
    given = replays.inputs(made)
    total, clip = 0.0, 0.05
    for r in range(replays.B):
        for k in range(replays.K):
            std, drift = made.std_RK[r, k].item(), (made.mean_RKLD - made.old_mean_RKLD)[r, k]
            bias = sum(d**2 for d in drift.flatten().tolist()) / drift.numel() / (2 * std**2)
            ratio = math.exp(std * ((made.image_log_prob_RK - made.old_image_log_prob_RK)[r, k].item() + bias))
            a = replays.ADVANTAGE[r].item()
            clipped = min(max(ratio, 1 - clip), 1 + clip)
            total += max(-a * ratio, -a * clipped) / -made.dt_RK[r, k].item()
    outputs = GuardImage(clip)(given)
    assert outputs.loss.item() == pytest.approx(total / replays.COUNTS.steps)
    assert 0 < outputs.metrics["clip_fraction/image"].value < 1


def test_without_drift_and_at_unit_noise_it_is_grpo():
    made = replays.replay(spread=0.05)
    still = dataclasses.replace(made, old_mean_RKLD=made.mean_RKLD, std_RK=ONES)
    given = replays.inputs(still)
    guard, grpo = GuardImage(0.02, divide_by_length=False)(given), GRPOImage(0.02)(given)
    assert torch.equal(guard.loss, grpo.loss)
    moved = dataclasses.replace(given, replay=dataclasses.replace(given.replay, old_mean_RKLD=made.old_mean_RKLD))
    assert not torch.equal(GuardImage(0.02, divide_by_length=False)(moved).loss, grpo.loss)


def test_on_policy_its_gradient_is_that_of_grpo_times_std_over_length():
    made = replays.on_policy(replays.replay())
    log_prob = made.image_log_prob_RK.requires_grad_()
    outputs = GuardImage(0.02)(replays.inputs(made))
    outputs.loss.backward()
    expected = -replays.ADVANTAGE[:, None] * made.std_RK / -made.dt_RK / replays.COUNTS.steps
    torch.testing.assert_close(log_prob.grad, expected)
    assert outputs.maxima["ratio_error/image"] == 0


def test_padding_may_hold_anything():
    made = replays.replay()
    mask = torch.tensor([[True, True, False]] * replays.B)
    made = dataclasses.replace(made, step_mask_RK=mask)
    clean = GuardImage(0.1)(replays.inputs(made)).loss
    dirty = dataclasses.replace(
        made,
        mean_RKLD=made.mean_RKLD.masked_fill(~mask[..., None, None], math.nan),
        image_log_prob_RK=made.image_log_prob_RK.masked_fill(~mask, math.nan),
        std_RK=made.std_RK.masked_fill(~mask, 0.0),
        dt_RK=made.dt_RK.masked_fill(~mask, 0.0),
    )
    torch.testing.assert_close(GuardImage(0.1)(replays.inputs(dirty)).loss, clean)
