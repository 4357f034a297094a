"""The deterministic flow, by Euler: for evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from project.samplers.base import Sampler


class FlowODE(Sampler):
    """No stochastic evaluation: the window is empty and nothing can be trained.

    Args:
        num_steps: N, points of the schedule: N - 1 evaluations of the model.
        shift: how far the schedule is moved towards noise; 1 = evenly spaced.
    """

    def __init__(self, num_steps: int, *, shift: float = 3.0) -> None:
        super().__init__(num_steps, shift=shift, noise_level=0.0)

    @property
    def stochastic_evaluations(self) -> int:
        return 0

    def moments(self, x_RLD: Tensor, v_RLD: Tensor, step_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sigma_R, next_R = self._ends(step_R)
        return self.euler(x_RLD, v_RLD, step_R), torch.zeros_like(sigma_R), next_R - sigma_R
