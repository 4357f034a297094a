"""Group-relative advantages: how much better a sample is than the others of its prompt (GRPO, arXiv 2402.03300)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from project.trajectory import Advantages


def advantages(
    reward_N: Tensor,
    text_reward_N: Tensor,
    group_size: int,
    *,
    scale: Literal["global", "group", "none"] = "global",
    clip: float = 5.0,
    eps: float = 1e-4,
    image_mask_N: Tensor | None = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> Advantages:
    """`A = (r - mean of the group) / (std + eps)` over the survivors: the samples with both rewards.

    A sample without a reward (NaN) is in no mean, std or loss; a group with fewer than two survivors is dropped
    whole. The text advantage is that of `reward + text_reward`, with its own mean and std. Population std (ddof 0).

    Args:
        reward_N, text_reward_N: group by group; NaN = not scored.
        group_size: G.
        scale: divide by the std of all survivors of all ranks ("global"), of the group, or not at all ("none").
        clip: image advantages are clipped to [-clip, clip].
        eps: added to the std.
        image_mask_N: bool; the image advantage is 0 where it is false (badly formed text), the text's stays.
        reduce: sum of an fp64 tensor over the ranks; this process alone if None. Called once, by every rank.

    Returns:
        fp32 advantages, 0 for samples that did not survive; metrics over all ranks.

    Raises:
        ValueError: if G < 2, N is no multiple of G, the lengths differ, a reward is infinite or scale is unknown.
    """
    _check(reward_N, text_reward_N, group_size, scale)
    reward_PG = reward_N.double().reshape(-1, group_size)
    total_PG = reward_PG + text_reward_N.double().reshape(-1, group_size)
    scored_PG = ~torch.isnan(total_PG)
    kept_P = scored_PG.sum(1) >= 2
    valid_PG = scored_PG & kept_P[:, None]
    local = torch.cat(
        [
            _moments(reward_PG, valid_PG),
            _moments(total_PG, valid_PG),
            torch.stack([kept_P.sum(), (_flat(reward_PG, valid_PG) & kept_P).sum()]).double(),
            torch.stack([(~valid_PG).sum(), (~kept_P).sum()]).double(),
        ]
    )
    count, mean, std, _, _, total_std, groups, flat, lost_samples, lost_groups = _statistics(
        local if reduce is None else reduce(local)
    )
    image_PG = _centred(reward_PG, valid_PG) / _divisor(reward_PG, valid_PG, scale, std, eps)
    text_PG = _centred(total_PG, valid_PG) / _divisor(total_PG, valid_PG, scale, total_std, eps)
    image_N = image_PG.clamp(-clip, clip).flatten().float()
    return Advantages(
        image_N=image_N if image_mask_N is None else image_N.where(image_mask_N, 0.0),
        text_N=text_PG.flatten().float(),
        valid_N=valid_PG.flatten(),
        metrics={
            "reward/mean": mean,
            "reward/std": std,
            "reward/zero_std_ratio": flat / groups if groups else math.nan,
            "reward/survivors": count,
            "reward/dropped_samples": lost_samples,
            "reward/dropped_groups": lost_groups,
        },
    )


def _check(reward_N: Tensor, text_reward_N: Tensor, group_size: int, scale: str) -> None:
    if group_size < 2:
        raise ValueError(
            f"group size {group_size}: an advantage compares samples of one prompt, draw 2 or more (num_generations)"
        )
    if scale not in ("global", "group", "none"):
        raise ValueError(f"scale={scale!r} is unknown: choose global, group or none")
    if reward_N.shape != text_reward_N.shape or reward_N.ndim != 1 or len(reward_N) % group_size:
        raise ValueError(
            f"rewards of shapes {tuple(reward_N.shape)} and {tuple(text_reward_N.shape)} are not whole groups of "
            f"{group_size} samples: give one reward per sample, group by group"
        )
    if torch.isinf(reward_N).any() or torch.isinf(text_reward_N).any():
        raise ValueError("a reward is infinite: a reward callback must return finite numbers, or NaN for unscored")


def _moments(value_PG: Tensor, valid_PG: Tensor) -> Tensor:
    """Count, sum and sum of squares over the survivors: what adds up over ranks."""
    value = value_PG[valid_PG]
    return torch.stack([valid_PG.sum().double(), value.sum(), value.square().sum()])


def _statistics(summed: Tensor) -> list[float]:
    """The vector that was summed, with (count, sum, sum of squares) turned into (count, mean, std)."""
    numbers = summed.tolist()
    for start in (0, 3):
        count, total, squares = numbers[start : start + 3]
        mean = total / count if count else math.nan
        std = math.sqrt(max(squares / count - mean**2, 0.0)) if count else math.nan
        numbers[start : start + 3] = count, mean, std
    return numbers


def _centred(value_PG: Tensor, valid_PG: Tensor) -> Tensor:
    """Difference to the group's mean; 0 where there is no survivor."""
    known_PG = value_PG.where(valid_PG, 0.0)
    mean_P1 = known_PG.sum(1, keepdim=True) / valid_PG.sum(1, keepdim=True).clamp_min(1)
    return (known_PG - mean_P1).where(valid_PG, 0.0)


def _divisor(value_PG: Tensor, valid_PG: Tensor, scale: str, global_std: float, eps: float) -> Tensor | float:
    if scale == "none":
        return 1.0
    if scale == "global":
        return (0.0 if math.isnan(global_std) else global_std) + eps
    square_P1 = _centred(value_PG, valid_PG).square().sum(1, keepdim=True)
    return (square_P1 / valid_PG.sum(1, keepdim=True).clamp_min(1)).sqrt() + eps


def _flat(value_PG: Tensor, valid_PG: Tensor) -> Tensor:
    """Groups whose survivors all have the same reward: they teach nothing."""
    highest_P = value_PG.where(valid_PG, -math.inf).amax(1)
    lowest_P = value_PG.where(valid_PG, math.inf).amin(1)
    return highest_P == lowest_P
