"""Terms that several objectives share: clipped and truncated ratios, divergences, means over tokens.

Shape suffixes: project/trajectory.py.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from project.core.metrics import Mean
from project.objectives.base import Counts, FirstStepRatio

TextReduction = Literal["tokens", "sequences"]


def clipped_loss(log_ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """`max(-A r, -A clip(r, 1 - low, 1 + high))` with r = exp(log_ratio), elementwise (PPO, arXiv 1707.06347)."""
    ratio = log_ratio.exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))


def clipped(log_ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Where the clip cuts the gradient: a good sample's ratio above, or a bad one's below."""
    excess = torch.expm1(log_ratio)
    return ((advantage > 0) & (excess > high)) | ((advantage < 0) & (excess < -low))


def truncated_loss(log_ratio: Tensor, advantage: Tensor, cap: float) -> Tensor:
    """`-A min(r, cap)` with r = exp(log_ratio), elementwise, with the gradient `-A min(r, cap)` of log_ratio.

    A term that is truncated keeps a gradient, which a clipped one loses (CISPO, arXiv 2506.13585).
    """
    weight = log_ratio.detach().exp().clamp_max(cap)
    return -advantage * weight * (1 + log_ratio - log_ratio.detach())


def first_ratio(log_ratio: Tensor, setting: FirstStepRatio, first: bool) -> Tensor:
    """The log-ratio that a loss uses, from the measured one: 0 with its gradient where the ratio is taken as 1."""
    return log_ratio - log_ratio.detach() if first and setting == "one" else log_ratio


def sequence_mean(value_RT: Tensor, mask_RT: Tensor) -> Tensor:
    """Gives each token the mean over the marked tokens of its row; 0 in rows without any."""
    mean_R1 = (value_RT * mask_RT).sum(1, keepdim=True) / mask_RT.sum(1, keepdim=True).clamp_min(1)
    return mean_R1.expand_as(value_RT)


def token_weights(mask_RT: Tensor, counts: Counts, reduction: TextReduction) -> tuple[Tensor, int]:
    """Weight of each token in the sum, and what the sum is divided by.

    `tokens`: the mean over all tokens of the update. `sequences`: over its texts, each the mean over its tokens.
    """
    if reduction == "tokens":
        return mask_RT.float(), max(counts.tokens, 1)
    return mask_RT / mask_RT.sum(1, keepdim=True).clamp_min(1), max(counts.sequences, 1)


def gaussian_kl(difference_LD: Tensor, std: Tensor) -> Tensor:
    """KL between Gaussians of one std whose means differ by `difference` [..., L, D], per dimension: [...]."""
    return difference_LD.square().mean((-2, -1)) / (2 * std.square())


def k3(log_ratio: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) from a sample of the policy, with log_ratio = reference - policy; >= 0."""
    return torch.expm1(log_ratio) - log_ratio


def known(value: Tensor, mask: Tensor) -> Tensor:
    """The value where it means something, else 0 (padding may hold anything, and must send no gradient)."""
    return torch.where(mask, value, 0.0)


def ratio_metrics(kind: str, log_ratio: Tensor, cut: Tensor, mask: Tensor) -> dict[str, Mean[Tensor]]:
    """`ratio/`, `mean_ratio_error/` and `clip_fraction/` of the image or the text.

    Args:
        cut: where the loss changes the gradient of a ratio.
    """
    return {
        f"ratio/{kind}": Mean.of(log_ratio.exp(), mask),
        f"mean_ratio_error/{kind}": Mean.of(torch.expm1(log_ratio).abs(), mask),
        f"clip_fraction/{kind}": Mean.of(cut, mask),
    }


def largest_error(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """max |ratio - 1| over what is marked; 0 if nothing is."""
    error = torch.expm1(log_ratio.detach()).abs()[mask]
    return torch.cat([error, error.new_zeros(1)]).max()


def check_positive(**values: float) -> None:
    """Raises ValueError for a number that is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}={value}: it must be positive")
