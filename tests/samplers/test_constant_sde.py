from __future__ import annotations

import pytest
import torch

from project.samplers.constant_sde import ConstantSDE
from tests.helpers.sampling import sde


def by_score(x, v, sigma, after, eta):
    """DanceGRPO's own form: `x + v dt + eta^2 / 2 * -score(x) * dt`, score of the Gaussian around x0 = x - sigma v."""
    dt = after - sigma
    score = -(x - (1 - sigma) * (x - sigma * v)) / sigma**2
    return x + v * dt - 0.5 * eta**2 * score * dt, eta * (-dt) ** 0.5


@pytest.mark.parametrize(("sigma", "after"), [(1.0, 0.9), (0.6, 0.3), (0.25, 0.0)])
def test_the_step_is_that_of_the_score(sigma, after):
    x, v = torch.randn(2, 1, 5, 3, generator=torch.Generator().manual_seed(0))
    mean, std, dt = ConstantSDE(0.4).moments(x, v, torch.tensor([sigma]), torch.tensor([after]))
    expected, spread = by_score(x, v, sigma, after, 0.4)
    torch.testing.assert_close(mean, expected)
    assert std.item() == pytest.approx(spread) and dt.item() == pytest.approx(after - sigma)


def test_by_hand():
    # sigma 0.5 -> 0.25, eta 0.8: s^2 = 0.64, mean = x (1 - 0.64 * 0.25) + v (1 + 0.32) (-0.25), std = 0.8 * 0.5
    mean, std, _ = ConstantSDE(0.8).moments(
        torch.full((1, 1, 1), 10.0), torch.full((1, 1, 1), 2.0), torch.tensor([0.5]), torch.tensor([0.25])
    )
    assert mean.item() == pytest.approx(8.4 - 0.66) and std.item() == pytest.approx(0.4)


def test_final_variance_is_within_one_percent_with_many_steps(gaussian_variance):
    assert gaussian_variance(sde(640, transition=ConstantSDE(0.5)), 0.25) == pytest.approx(0.25, rel=0.01)
