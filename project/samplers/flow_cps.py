"""Flow-CPS: coefficient-preserving sampling (arXiv 2509.05952)."""

from __future__ import annotations

import math

from torch import Tensor

from project.samplers.base import Sampler


class FlowCPS(Sampler):
    """Transition that keeps the noise of x' at exactly sigma', with `s = sigma' sin(a pi / 2)`.

    x0 = x - sigma v;  x1 = x + (1 - sigma) v;  mean = x0 (1 - sigma') + x1 sqrt(sigma'^2 - s^2);  x' = mean + s noise.
    The last evaluation (sigma' = 0) adds no noise, so it is in no window.

    Args:
        num_steps: N, points of the schedule: N - 1 evaluations of the model.
        shift: how far the schedule is moved towards noise; 1 = evenly spaced.
        noise_level: a in [0, 1], the share of the noise that is drawn anew; 0 = the deterministic Euler step.
        window_size: evaluations that are stochastic and trained; the whole range if None.
        window_range: (lo, hi), evaluations lo .. hi - 1 from which windows are taken; all but the last if None.

    Raises:
        ValueError: as every sampler, and if a > 1.
    """

    def __init__(
        self,
        num_steps: int,
        *,
        shift: float = 3.0,
        noise_level: float = 0.7,
        window_size: int | None = None,
        window_range: tuple[int, int] | None = None,
    ) -> None:
        if noise_level > 1:
            raise ValueError(f"noise_level={noise_level}: Flow-CPS draws at most all noise anew, set it from 0 to 1")
        super().__init__(
            num_steps, shift=shift, noise_level=noise_level, window_size=window_size, window_range=window_range
        )

    @property
    def stochastic_evaluations(self) -> int:
        return self.evaluations - 1

    def moments(self, x_RLD: Tensor, v_RLD: Tensor, step_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sigma_R, next_R = self._ends(step_R)
        angle = self.noise_level * math.pi / 2
        x, v, sigma = x_RLD.float(), v_RLD.float(), sigma_R[..., None, None]
        x0_RLD = x - sigma * v
        x1_RLD = x + (1 - sigma) * v
        # sqrt(sigma'^2 - s^2) = sigma' cos(a pi / 2), without the cancellation
        kept_R = next_R * math.cos(angle)
        mean_RLD = x0_RLD * (1 - next_R)[..., None, None] + x1_RLD * kept_R[..., None, None]
        return mean_RLD, next_R * math.sin(angle), next_R - sigma_R
