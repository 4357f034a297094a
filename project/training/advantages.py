"""Group-relative advantages: how much better a sample is than the others of its prompt (GRPO, arXiv 2402.03300)."""

from __future__ import annotations

import math
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
    image_context_N: Tensor | None = None,
    image_mask_N: Tensor | None = None,
    baseline_P: Tensor | None = None,
    text_baseline_P: Tensor | None = None,
) -> Advantages:
    """`A = (r - mean of the group) / (std + eps)` over the survivors: the samples with both rewards.

    A sample without a reward (NaN) counts in no mean, std or loss; a group with fewer than two survivors is dropped.
    The text advantage is that of `reward + text_reward`, with its own mean and std. Population std (ddof 0).

    A picture is drawn from a context: prompt, text, and the picture that was looked at. If the texts of a group differ,
    rewards differ mostly because of the texts, which is noise for the gradient of the picture. With `image_context_N` a
    picture is compared with the mean over the M pictures of its context. This baseline is as good as that of the group:
    except for the sample's own share (1 / M instead of 1 / G) it does not depend on the picture. A picture that is
    alone in its context has advantage 0.

    Args:
        reward_N, text_reward_N: of all samples of the update, group by group; NaN = not scored.
        group_size: G.
        scale: divide by the std of all survivors ("global"), of the group, or not at all ("none").
        clip: image advantages are clipped to [-clip, clip].
        eps: added to the std.
        image_context_N: int64, equal for samples of a group whose pictures were drawn from the same context (see
            `Group.context_N`); the whole group is the picture's baseline if None. With scale "group" the divisor is
            then the std within the contexts, of the samples that share theirs.
        image_mask_N: bool; the image advantage is 0 where it is false (badly formed text), the text's stays.
        baseline_P: reward of each group's baseline sample, instead of the mean; NaN = not scored, the group is dropped.
        text_baseline_P: what that sample's text reward adds.

    Returns:
        fp32 advantages, 0 for samples that did not survive; metrics.

    Raises:
        ValueError: if G < 2, N is no multiple of G, the lengths differ, a reward is infinite or scale is unknown.
    """
    _check(reward_N, text_reward_N, group_size, scale)
    reward_PG = reward_N.double().reshape(-1, group_size)
    total_PG = reward_PG + text_reward_N.double().reshape(-1, group_size)
    below_P1 = below_text_P1 = None
    if baseline_P is not None and text_baseline_P is not None:
        below_P1 = baseline_P.double()[:, None]
        below_text_P1 = below_P1 + text_baseline_P.double()[:, None]
        total_PG = total_PG + torch.zeros_like(below_text_P1).where(~below_text_P1.isnan(), math.nan)
    scored_PG = ~torch.isnan(total_PG)
    kept_P = scored_PG.sum(1) >= 2
    valid_PG = scored_PG & kept_P[:, None]
    count, mean, std = _statistics(reward_PG[valid_PG])
    _, _, total_std = _statistics(total_PG[valid_PG])
    groups, flat = int(kept_P.sum()), int((_flat(reward_PG, valid_PG) & kept_P).sum())
    whole_PGG = _together(torch.zeros_like(valid_PG, dtype=torch.long), valid_PG)
    context_PGG = whole_PGG if image_context_N is None else _together(image_context_N.view_as(valid_PG), valid_PG)
    image_PG = _scaled(reward_PG, context_PGG, scale, std, eps, below_P1)
    text_PG = _scaled(total_PG, whole_PGG, scale, total_std, eps, below_text_P1)
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
            "reward/dropped_samples": float((~valid_PG).sum()),
            "reward/dropped_groups": float((~kept_P).sum()),
            **({} if below_P1 is None else {"reward/greedy": float(below_P1.nanmean())}),
        },
    )


def level(reward_N: Tensor, valid_N: Tensor) -> dict[str, float]:
    """Mean and std of the survivors' rewards as they were given, whatever was compared; to log."""
    _, mean, std = _statistics(reward_N.double()[valid_N])
    return {"reward/mean": mean, "reward/std": std}


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


def _statistics(value_M: Tensor) -> tuple[float, float, float]:
    """(count, mean, std) of some rewards, fp64; without any, mean and std are NaN."""
    count = float(len(value_M))
    if not count:
        return 0.0, math.nan, math.nan
    mean = value_M.sum().item() / count
    return count, mean, math.sqrt(max(value_M.square().sum().item() / count - mean**2, 0.0))


def _together(label_PG: Tensor, valid_PG: Tensor) -> Tensor:
    """bool [P, G, G]: which survivors of a group have one label; a sample that did not survive is with nobody."""
    return (label_PG[:, :, None] == label_PG[:, None, :]) & valid_PG[:, :, None] & valid_PG[:, None, :]


def _scaled(
    value_PG: Tensor, together_PGG: Tensor, scale: str, global_std: float, eps: float, baseline_P1: Tensor | None
) -> Tensor:
    """Difference to the mean of the samples that one is together with (or to the baseline), over the std around that
    mean; 0 where there is no survivor."""
    number_PG = together_PGG.sum(2)
    known_PG = value_PG.where(number_PG > 0, 0.0)
    mean_PG = (together_PGG.double() @ known_PG[:, :, None])[:, :, 0] / number_PG.clamp_min(1)
    centred_PG = (known_PG - mean_PG).where(number_PG > 0, 0.0)
    better_PG = centred_PG if baseline_P1 is None else (known_PG - baseline_P1).where(number_PG > 0, 0.0)
    if scale == "none":
        return better_PG
    if scale == "global":
        return better_PG / ((0.0 if math.isnan(global_std) else global_std) + eps)
    compared_P1 = (number_PG > 1).sum(1, keepdim=True).clamp_min(1)
    return better_PG / ((centred_PG.square().sum(1, keepdim=True) / compared_P1).sqrt() + eps)


def _flat(value_PG: Tensor, valid_PG: Tensor) -> Tensor:
    """Groups whose survivors all have the same reward: they teach nothing."""
    highest_P = value_PG.where(valid_PG, -math.inf).amax(1)
    lowest_P = value_PG.where(valid_PG, math.inf).amin(1)
    return highest_P == lowest_P
