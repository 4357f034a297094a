from __future__ import annotations

import math

import pytest
import torch

from project.samplers.flow_sde import FlowSDE
from tests.helpers.sampling import sde


def test_one_step_by_hand():
    # sigma 0.5 -> 0.25, dt = -0.25, a = 0.8: s^2 = 0.64 * 0.5 / 0.5 = 0.64
    # mean = x (1 - 0.64 * 0.25) + v (1 + 0.64 * 0.5) (-0.25) = 0.84 x - 0.33 v; std = 0.8 * 0.5
    mean, std, dt = FlowSDE(0.8).moments(
        torch.full((1, 1, 1), 10.0), torch.full((1, 1, 1), 2.0), torch.tensor([0.5]), torch.tensor([0.25])
    )
    assert mean.item() == pytest.approx(8.4 - 0.66, rel=1e-6)
    assert std.item() == pytest.approx(0.4, rel=1e-6)
    assert dt.item() == -0.25


def test_the_first_step_takes_the_next_time_in_its_denominator():
    # sigma 1 -> 0.75: s^2 = a^2 / (1 - 0.75) = 4 a^2; mean = x (1 - 4 a^2 / 2 * 0.25) - 0.25 v
    mean, std, _ = FlowSDE(0.5).moments(
        torch.full((1, 1, 1), 8.0), torch.full((1, 1, 1), 4.0), torch.tensor([1.0]), torch.tensor([0.75])
    )
    assert mean.item() == pytest.approx(8 * 0.875 - 1)
    assert std.item() == pytest.approx(math.sqrt(4 * 0.25 * 0.25))


def test_sample_moments():
    sampler = sde(8)
    x, v, step = torch.ones(1, 200, 200), torch.full((1, 200, 200), 0.5), torch.tensor([3])
    taken = sampler.sample(x, v, step, torch.randn(1, 200, 200))
    off = taken.next_RLD - taken.mean_RLD
    assert off.mean().item() == pytest.approx(0, abs=4 * taken.std_R.item() / 200)
    assert off.std().item() == pytest.approx(taken.std_R.item(), rel=0.015)


@pytest.mark.parametrize(("num_steps", "ratio", "tolerance"), [(16, 0.80, 0.005), (640, 0.997, 0.001)])
def test_discretisation_on_gaussian_data(num_steps, ratio, tolerance, gaussian_variance):
    assert gaussian_variance(sde(num_steps), 0.25) / 0.25 == pytest.approx(ratio, abs=tolerance)


@pytest.mark.parametrize("noise_level", [0.3, 0.7, 1.0])
def test_final_variance_is_within_one_percent_with_many_steps(noise_level, gaussian_variance):
    assert gaussian_variance(sde(640, transition=FlowSDE(noise_level)), 0.25) == pytest.approx(0.25, rel=0.01)
