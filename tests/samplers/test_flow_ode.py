from __future__ import annotations

import pytest
import torch

from project.samplers.flow_ode import FlowODE


@pytest.mark.parametrize(("num_steps", "ratio"), [(16, 0.67), (640, 0.99)])
def test_discretisation_on_gaussian_data(num_steps, ratio, gaussian_variance):
    assert gaussian_variance(FlowODE(num_steps), 0.25) / 0.25 == pytest.approx(ratio, abs=0.005)


def test_a_straight_path_is_followed_exactly_by_any_number_of_steps():
    noise, data = torch.randn(1, 5, 3), torch.randn(1, 5, 3)
    for num_steps in (2, 5, 17):
        sampler, x = FlowODE(num_steps), noise
        for step in range(sampler.evaluations):
            x = sampler.sample(x, noise - data, torch.tensor([step]), torch.randn(1, 5, 3)).next_RLD
        torch.testing.assert_close(x, data, atol=2e-6, rtol=0)


def test_nothing_can_be_trained():
    x = torch.ones(1, 2, 2)
    with pytest.raises(ValueError, match="no log-probability"):
        FlowODE(4).log_prob(x, x, torch.tensor([0]), x)
