"""Advantage-weighted matching by the forward process (AWM, arXiv 2509.25050)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from project.core.metrics import Mean
from project.objectives.base import LossOutputs
from project.objectives.forward_image import ForwardImage
from project.objectives.noised import Noised
from project.objectives.terms import check_positive, clipped, clipped_loss, largest_error, ratio_metrics

POWERS = {"uniform": 0, "sigma": 1, "sigma_squared": 2}


class AWMImage(ForwardImage):
    """`max(-A ratio, -A clip(ratio, 1 - c, 1 + c))` with `ratio = exp(w (l_old - l))`, `l = |v - (noise - x0)|^2`.

    `l` is a mean over latents, and `l_old` the same under the weights of the rollout; it is a bound on minus the
    log-likelihood of the picture. At the first optimizer step on a rollout every ratio is exactly 1, and the gradient
    is that of `A w l`. It learns fast and easily becomes unstable: add `VelocityKL`.

    Args:
        clip: c.
        weighting: w by flow time: 1, sigma or its square.

    Raises:
        ValueError: if the clip is not positive or the weighting unknown.
    """

    def __init__(
        self,
        clip: float = 1e-5,
        weighting: Literal["uniform", "sigma", "sigma_squared"] = "uniform",
        states: int = 4,
        flow_times: tuple[float, float] = (0.0, 1.0),
        guided: bool = True,
    ) -> None:
        super().__init__(states, flow_times, guided)
        check_positive(clip=clip)
        if weighting not in POWERS:
            raise ValueError(f"weighting={weighting!r} is unknown: choose one of {', '.join(POWERS)}")
        self.clip = clip
        self.weighting = weighting

    @property
    def clip_width(self) -> float:
        return self.clip

    def loss(self, noised: Noised, v_RKLD: Tensor, old_RKLD: Tensor, advantage_R1: Tensor) -> LossOutputs:
        weight_K = (noised.sigma_K ** POWERS[self.weighting]).to(v_RKLD.device)
        l_RK = (v_RKLD - noised.target_RKLD).square().mean((-2, -1))
        old_l_RK = (old_RKLD - noised.target_RKLD).square().mean((-2, -1))
        log_ratio_RK = weight_K * (old_l_RK - l_RK)
        advantage_RK = advantage_R1.expand_as(log_ratio_RK)
        loss_RK = clipped_loss(log_ratio_RK, advantage_RK, self.clip, self.clip)
        everywhere_RK = torch.ones_like(loss_RK, dtype=torch.bool)
        cut_RK = clipped(log_ratio_RK, advantage_RK, self.clip, self.clip)
        return LossOutputs(
            loss=loss_RK.mean(1).sum(),
            metrics={
                "loss/image": Mean.of(loss_RK, everywhere_RK),
                "matching/image": Mean.of(l_RK, everywhere_RK),
                **ratio_metrics("image", log_ratio_RK, cut_RK, everywhere_RK),
            },
            maxima={"ratio_error/image": largest_error(log_ratio_RK, everywhere_RK)},
        )
