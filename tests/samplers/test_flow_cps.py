from __future__ import annotations

import math

import pytest
import torch

from project.samplers.flow_cps import FlowCPS
from project.samplers.schedule import sigmas
from tests.helpers.sampling import at, sde


def test_one_step_by_hand():
    # sigma 0.5 -> 0.25, a = 1/3: s = 0.25 sin(30 degrees) = 0.125; x = 10, v = 2: x0 = 9, x1 = 11
    mean, std, dt = FlowCPS(1 / 3).moments(
        torch.full((1, 1, 1), 10.0), torch.full((1, 1, 1), 2.0), torch.tensor([0.5]), torch.tensor([0.25])
    )
    assert mean.item() == pytest.approx(9 * 0.75 + 11 * math.sqrt(0.25**2 - 0.125**2), rel=1e-6)
    assert std.item() == pytest.approx(0.125, rel=1e-6)
    assert dt.item() == -0.25


@pytest.mark.parametrize("num_steps", [2, 3, 7, 40])
@pytest.mark.parametrize("noise_level", [0.0, 0.7, 1.0])
def test_exact_on_point_mass_data_for_every_number_of_steps(num_steps, noise_level):
    """With all data at c the state must be N((1 - sigma) c, sigma^2) after every step."""
    transition, sigma_N, c = FlowCPS(noise_level), sigmas(num_steps, 3.0), 3.0
    mean_x, variance = 0.0, 1.0
    for step, sigma in enumerate(sigma_N[:-1].tolist()):
        # the transition is affine in x: two evaluations give its offset and slope
        x = torch.tensor([0.0, 1.0])[:, None, None]
        mean, std, _ = transition.moments(x, (x - c) / sigma, sigma_N[[step, step]], sigma_N[[step + 1, step + 1]])
        offset, slope = mean[0].item(), (mean[1] - mean[0]).item()
        mean_x, variance = offset + slope * mean_x, slope**2 * variance + std[0].item() ** 2
        after = sigma_N[step + 1].item()
        assert mean_x == pytest.approx((1 - after) * c, abs=1e-5)
        assert variance == pytest.approx(after**2, abs=1e-5)


@pytest.mark.parametrize(("num_steps", "ratio"), [(16, 0.50), (640, 0.71)])
def test_discretisation_on_gaussian_data(num_steps, ratio, gaussian_variance):
    assert gaussian_variance(sde(num_steps, transition=FlowCPS()), 0.25) / 0.25 == pytest.approx(ratio, abs=0.005)


def test_the_last_evaluation_is_in_no_window():
    with pytest.raises(ValueError, match="8 evaluations that can be stochastic"):
        sde(10, 2, (0, 9), transition=FlowCPS())
    sampler = sde(10, 2, (0, 8), transition=FlowCPS())
    assert max(sampler.steps(at(0, update)).stop for update in range(100)) == 8


def test_the_last_evaluation_cannot_be_replayed():
    x = torch.ones(1, 2, 2)
    with pytest.raises(ValueError, match=r"deterministic at the flow times"):
        sde(10, transition=FlowCPS()).log_prob(x, x, torch.tensor([8]), x)


def test_more_than_all_noise_is_refused():
    with pytest.raises(ValueError, match="from 0 to 1"):
        FlowCPS(1.1)
