"""The SDE of the flow with the same noise at every flow time (DanceGRPO, arXiv 2505.07818)."""

from __future__ import annotations

import torch
from torch import Tensor

from project.samplers.flow_sde import FlowSDE


class ConstantSDE(FlowSDE):
    """`FlowSDE` with `s = a` at all flow times: less noise than Flow-SDE at early steps, more at late ones.

    Args:
        noise_level: a, the eta of the paper; 0 = the deterministic Euler step.
    """

    def __init__(self, noise_level: float = 0.3) -> None:
        super().__init__(noise_level)

    def variance(self, sigma_R: Tensor, next_R: Tensor) -> Tensor:
        return torch.full_like(sigma_R, self.noise_level**2)
