"""Gaussian data, for which the exact velocity and so the whole process is linear."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from project.samplers.sampler import Sampler


def final_variance(sampler: Sampler, data_variance: float) -> float:
    """Variance of the last state, all steps stochastic (or none, without a transition), with
    v = E[noise - data | x] for data ~ N(0, data_variance)."""
    variance, one = 1.0, torch.ones(1, 1, 1)
    for step, sigma in enumerate(sampler.sigma_N[:-1].tolist()):
        slope = (sigma - (1 - sigma) * data_variance) / ((1 - sigma) ** 2 * data_variance + sigma**2)
        steps = torch.tensor([step])
        if sampler.transition is None:
            variance *= sampler.euler(one, slope * one, steps).item() ** 2
            continue
        mean, std, _ = sampler.transition.moments(one, slope * one, sampler.sigma_N[steps], sampler.sigma_N[steps + 1])
        variance = mean.item() ** 2 * variance + std.item() ** 2
    return variance


@pytest.fixture
def gaussian_variance() -> Callable[[Sampler, float], float]:
    return final_variance
