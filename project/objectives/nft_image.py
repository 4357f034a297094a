"""DiffusionNFT: negative-aware fine-tuning by the forward process (arXiv 2509.16117)."""

from __future__ import annotations

import torch
from torch import Tensor

from project.core.metrics import Mean
from project.objectives.base import LossOutputs
from project.objectives.forward_image import ForwardImage
from project.objectives.noised import Noised
from project.objectives.terms import check_positive


class NFTImage(ForwardImage):
    """`(r |x0(v+) - x0|^2 / w+ + (1 - r) |x0(v-) - x0|^2 / w-) / b`, mean over latents and noised states.

    `r = clip(A, -a, a) / (2 a) + 1/2`, `v+ = b v + (1 - b) v_old`, `v- = (1 + b) v_old - b v`, `x0(v) = x - sigma v`,
    `w = mean |x0(v) - x0|` without gradient, at least 1e-5. `v_old` is the velocity under the weights of the rollout:
    at the first optimizer step on a rollout both are equal, and a sample with advantage 0 has no gradient. At later
    steps such a sample pulls the velocity back to `v_old`.

    Args:
        strength: b, how far `v+` and `v-` lie from `v_old`.
        largest_advantage: a, the advantage at which a sample counts as wholly good or wholly bad.

    Raises:
        ValueError: if either is not positive.
    """

    def __init__(
        self,
        strength: float = 1.0,
        largest_advantage: float = 5.0,
        states: int = 4,
        flow_times: tuple[float, float] = (0.0, 1.0),
        guided: bool = True,
    ) -> None:
        super().__init__(states, flow_times, guided)
        check_positive(strength=strength, largest_advantage=largest_advantage)
        self.strength = strength
        self.largest_advantage = largest_advantage

    def loss(self, noised: Noised, v_RKLD: Tensor, old_RKLD: Tensor, advantage_R1: Tensor) -> LossOutputs:
        a, b = self.largest_advantage, self.strength
        good_R1 = advantage_R1.clamp(-a, a) / (2 * a) + 0.5
        positive_RK = _matching(noised, b * v_RKLD + (1 - b) * old_RKLD)
        negative_RK = _matching(noised, (1 + b) * old_RKLD - b * v_RKLD)
        loss_RK = (good_R1 * positive_RK + (1 - good_R1) * negative_RK) / b
        moved_RK = (v_RKLD - old_RKLD).square().mean((-2, -1))
        everywhere_RK = torch.ones_like(loss_RK)
        return LossOutputs(
            loss=loss_RK.mean(1).sum(),
            metrics={
                "loss/image": Mean.of(loss_RK, everywhere_RK),
                "velocity_moved/image": Mean.of(moved_RK, everywhere_RK),
            },
        )


def _matching(noised: Noised, v_RKLD: Tensor) -> Tensor:
    """`|x0(v) - x0|^2 / w`, mean over latents, [R, K]."""
    error_RKLD = noised.clean(v_RKLD) - noised.clean_R1LD
    scale_RK = error_RKLD.detach().abs().mean((-2, -1)).clamp_min(1e-5)
    return error_RKLD.square().mean((-2, -1)) / scale_RK
