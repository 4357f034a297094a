from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from project.objectives.velocity_kl import VelocityKL
from project.samplers.flow_sde import FlowSDE
from tests.helpers import replays


def test_at_the_trained_steps_by_hand():
    made = replays.replay()
    mask = torch.tensor([[True, False, True]] * replays.B)
    velocity = made.velocity_RKLD.masked_fill(~mask[..., None, None], math.nan)
    made = dataclasses.replace(made, step_mask_RK=mask, velocity_RKLD=velocity)
    square = (made.velocity_RKLD - made.reference.velocity_RKLD).square().mean((-2, -1))[mask]
    outputs = VelocityKL(0.5)(replays.inputs(made))
    assert outputs.loss.item() == pytest.approx(0.5 * square.sum().item() / replays.COUNTS.steps)
    assert outputs.metrics["kl/velocity"].value.item() == pytest.approx(square.mean().item(), rel=1e-5)


def test_at_noised_states_by_hand():
    made = replays.replay()
    sigma, noise = replays.states("velocity penalty")
    total = 0.0
    for k, s in enumerate(sigma):
        x = (1 - s) * made.clean_RLD + s * noise[:, k]
        total += ((0.4 - 0.1) * x).square().mean((-2, -1)).sum().item()
    outputs = VelocityKL(0.5, at="noised", states=replays.STATES)(replays.inputs(made))
    assert outputs.loss.item() == pytest.approx(0.5 * total / replays.STATES / replays.B, rel=1e-5)


def test_it_is_zero_at_the_reference():
    made = replays.replay()
    same = dataclasses.replace(made, reference=made)
    for at in ("steps", "noised"):
        assert VelocityKL(1.0, at=at)(replays.inputs(same)).loss == 0


def test_the_gaussian_kl_is_it_times_a_number_that_depends_on_the_flow_time():
    """The mean of a step is linear in the velocity, so only the weight of flow times differs."""
    x, zero = torch.randn(1, 4, 2), torch.zeros(1, 4, 2)
    for sigma, after in ((0.9, 0.75), (0.5, 0.3)):
        ends = torch.tensor([sigma]), torch.tensor([after])
        mean, std, _ = FlowSDE(0.7).moments(zero, x, *ends)
        slope = FlowSDE(0.7).moments(zero, torch.ones(1, 4, 2), *ends)[0][0, 0, 0]
        kl = mean.square().mean() / (2 * std**2)
        torch.testing.assert_close(kl, x.square().mean() * slope**2 / (2 * std**2))
