"""Flow-CPS: coefficient-preserving sampling (arXiv 2509.05952)."""

from __future__ import annotations

import math

from torch import Tensor

from project.samplers.transition import Transition


class FlowCPS(Transition):
    """Transition that keeps the noise of x' at exactly sigma', with `s = sigma' sin(a pi / 2)`.

    x0 = x - sigma v;  x1 = x + (1 - sigma) v;  mean = x0 (1 - sigma') + x1 sqrt(sigma'^2 - s^2);  x' = mean + s noise.
    The last evaluation (sigma' = 0) adds no noise, so it is never in a window.

    Args:
        noise_level: a in [0, 1], the share of the noise that is drawn anew; 0 = the deterministic Euler step.

    Raises:
        ValueError: if a is outside [0, 1].
    """

    def __init__(self, noise_level: float = 0.7) -> None:
        if noise_level > 1:
            raise ValueError(f"noise_level={noise_level}: Flow-CPS draws at most all noise anew, set it from 0 to 1")
        super().__init__(noise_level)

    def stochastic(self, sigma_N: Tensor) -> int:
        return super().stochastic(sigma_N) - 1

    def moments(self, x_RLD: Tensor, v_RLD: Tensor, sigma_R: Tensor, next_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        angle = self.noise_level * math.pi / 2
        x, v, sigma = x_RLD.float(), v_RLD.float(), sigma_R[..., None, None]
        x0_RLD = x - sigma * v
        x1_RLD = x + (1 - sigma) * v
        # sqrt(sigma'^2 - s^2) = sigma' cos(a pi / 2), without the cancellation
        kept_R = next_R * math.cos(angle)
        mean_RLD = x0_RLD * (1 - next_R)[..., None, None] + x1_RLD * kept_R[..., None, None]
        return mean_RLD, next_R * math.sin(angle), next_R - sigma_R
