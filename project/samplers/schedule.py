"""Flow times of the evaluations of a picture: sigma = 1 is pure noise, sigma = 0 is data."""

from __future__ import annotations

import torch
from torch import Tensor


class Schedule:
    """N flow times from 1 to 0, evenly spaced and then shifted towards noise: N - 1 evaluations of the model.

    Another spacing is a subclass with a `sigma_N` of its own.

    Args:
        num_steps: N, points of the schedule.
        shift: how far the flow times are moved towards noise; 1 = evenly spaced.

    Raises:
        ValueError: if the schedule has fewer than two points or the shift is not positive.
    """

    def __init__(self, num_steps: int, shift: float = 3.0) -> None:
        if num_steps < 2:
            raise ValueError(
                f"num_steps={num_steps}: a schedule needs at least its two ends, set num_steps to 2 or more"
            )
        if shift <= 0:
            raise ValueError(f"shift={shift}: the schedule's shift must be positive (3 is usual, 1 changes nothing)")
        self.num_steps = num_steps
        self.shift = shift
        self._sigma_N = sigmas(num_steps, shift)

    @property
    def sigma_N(self) -> Tensor:
        """Flow times from 1 to 0, fp32 [N] on the CPU."""
        return self._sigma_N

    @property
    def evaluations(self) -> int:
        """N - 1, evaluations of the model per picture. Evaluation i goes from sigma_N[i] to sigma_N[i + 1]."""
        return len(self.sigma_N) - 1


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move flow times in [0, 1] towards noise: `s t / (1 + (s - 1) t)`; both ends stay, shift 1 changes nothing."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sigmas(num_steps: int, shift: float) -> Tensor:
    """N flow times from 1 to 0, evenly spaced and then shifted, fp32 [N]: N - 1 evaluations of the model.

    In fp32 throughout, as upstream: a time at the very end of a guidance interval then falls on upstream's side.
    """
    return shift_sigma(torch.linspace(1, 0, num_steps, dtype=torch.float32), shift)
