"""Ratios of denoising steps without bias and with one scale (GRPO-Guard, arXiv 2510.22319)."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from project.objectives.base import FirstStepRatio, Needs
from project.objectives.grpo_image import GRPOImage
from project.objectives.terms import gaussian_kl, known
from project.trajectory import Replay


class GuardImage(GRPOImage):
    """`GRPOImage` with the log-ratio `std (log_ratio + |d|^2 / (2 std^2))`, d = how far the mean of a step has moved.

    The log-ratio of a Gaussian step has the mean `-|d|^2 / (2 std^2)` and a spread of `|d| / std`: the first is taken
    out, the second becomes equal for all steps. All means are over latents, as log-probabilities are.

    Args:
        clip: clip of the normalised ratio. Take that of `GRPOImage` times a typical `std` of a step.
        divide_by_length: divide the loss of a step by its length `-dt`, so that steps weigh alike.
    """

    def __init__(
        self, clip: float = 3e-6, divide_by_length: bool = True, first_step_ratio: FirstStepRatio = "measured"
    ) -> None:
        super().__init__(clip, first_step_ratio)
        self.divide_by_length = divide_by_length

    @property
    def needs(self) -> Needs:
        return dataclasses.replace(super().needs, rollout_means=True, whole_samples=True)

    def log_ratio(self, replay: Replay) -> Tensor:
        if replay.old_mean_RKLD is None:
            raise ValueError("GuardImage needs the means of the rollout's steps (Replay.old_mean_RKLD)")
        mask_RK = replay.step_mask_RK
        moved_RKLD = known(replay.mean_RKLD - replay.old_mean_RKLD, mask_RK[..., None, None])
        std_RK = replay.std_RK.where(mask_RK, 1.0)
        return std_RK * (super().log_ratio(replay) + gaussian_kl(moved_RKLD, std_RK))

    def weighted(self, loss_RK: Tensor, replay: Replay) -> Tensor:
        return loss_RK / -replay.dt_RK.where(replay.step_mask_RK, -1.0) if self.divide_by_length else loss_RK
