"""Flow-SDE: the stochastic process with the marginals of the flow, by Euler-Maruyama (arXiv 2505.05470)."""

from __future__ import annotations

import torch
from torch import Tensor

from project.samplers.transition import Transition


class FlowSDE(Transition):
    """Transition with `s = a sqrt(sigma / (1 - sigma))`.

    mean = x (1 + s^2 / (2 sigma) dt) + v (1 + s^2 (1 - sigma) / (2 sigma)) dt;  x' = mean + s sqrt(-dt) noise.
    At sigma = 1 the denominator of s uses the next flow time instead.

    Args:
        noise_level: a, amount of noise that a step adds; 0 = the deterministic Euler step.
    """

    def variance(self, sigma_R: Tensor, next_R: Tensor) -> Tensor:
        """s^2, the variance per unit of flow time, fp32 [...]."""
        return self.noise_level**2 * sigma_R / (1 - torch.where(sigma_R == 1, next_R, sigma_R))

    def moments(self, x_RLD: Tensor, v_RLD: Tensor, sigma_R: Tensor, next_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dt_R = next_R - sigma_R
        variance_R = self.variance(sigma_R, next_R)
        of_x_R = 1 + variance_R / (2 * sigma_R) * dt_R
        of_v_R = (1 + variance_R * (1 - sigma_R) / (2 * sigma_R)) * dt_R
        mean_RLD = x_RLD.float() * of_x_R[..., None, None] + v_RLD.float() * of_v_R[..., None, None]
        return mean_RLD, (variance_R * -dt_R).sqrt(), dt_R
