"""Flow times: sigma = 1 is pure noise, sigma = 0 is data."""

from __future__ import annotations

import torch
from torch import Tensor


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move flow times in [0, 1] towards noise: `s t / (1 + (s - 1) t)`; both ends stay, shift 1 changes nothing."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sigmas(num_steps: int, shift: float) -> Tensor:
    """N flow times from 1 to 0, evenly spaced and then shifted, fp32 [N]: N - 1 evaluations of the model.

    In fp32 throughout, as upstream: a time at the very end of a guidance interval then falls on upstream's side.
    """
    return shift_sigma(torch.linspace(1, 0, num_steps, dtype=torch.float32), shift)
