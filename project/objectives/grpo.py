"""The clipped policy-gradient loss of AlphaGRPO on reasoning text and image (arXiv 2605.12495).

Sequence-level ratios are those of GSPO (arXiv 2507.18071), the asymmetric clip that of DAPO (arXiv 2503.14476), the
entropy quantile that of arXiv 2506.01939, k3 is Schulman's estimator. Shape suffixes: project/trajectory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from project.objectives.base import (
    ClipWidths,
    Counts,
    LossInputs,
    LossOutputs,
    Mean,
    Needs,
    Objective,
    with_entropy_threshold,
)
from project.trajectory import Group, Replay


class GRPO(Objective):
    """loss = image + kl_image * KL + text_weight * (text + kl_text * KL).

    At the first optimizer step on a rollout every ratio is 1 by construction: the gradient is the policy gradient, and
    the clip only sees rounding noise. In bf16 this noise is often wider than `clip_image`, so that the clip drops terms
    at random; `first_step_ratio: one` keeps all of them.

    Args:
        clip_image: the image ratio of a step is clipped to 1 +- this. It is small because the log-probability is a mean
            over dimensions, so ratios are very near 1.
        clip_text: (low, high): the text ratio is clipped to [1 - low, 1 + high].
        importance_sampling_level: one text ratio per sequence, `exp(mean over tokens of new - old)`, or one per token.
        text_reduction: the text loss is the mean over all tokens of the update, or over its sequences (each the mean
            over its tokens).
        text_weight: weight of the text loss.
        kl_image: weight of the KL divergence of the trained transitions to the reference; 0 = no reference needed.
        kl_image_form: exact Gaussian KL per dimension, or as published: times -dt (for Flow-SDE the std in the
            denominator is then the one before sqrt(-dt)).
        kl_text: weight of the k3 estimate of the text's KL divergence to the reference.
        top_entropy_quantile: only this share of the update's tokens, those with the highest entropy, counts in the text
            policy loss; denominators stay those of all tokens. 1 = all tokens.
        first_step_ratio: the ratio that the loss uses at the first optimizer step on a rollout. `measured`: as at every
            other step. `one`: 1 with the exact gradient, `exp(new - new.detach())`, for each image step and each
            text (or token), so that no term is clipped. It changes the loss alone: `ratio/*`, `mean_ratio_error/*`,
            `clip_fraction/*` and the maxima `ratio_error/*` are always of the measured ratio. So `clip_fraction/*` is
            then the share of terms that `measured` would have clipped.

    Raises:
        ValueError: if a clip is not positive, a weight negative or the quantile outside (0, 1].
    """

    def __init__(
        self,
        clip_image: float = 1e-5,
        clip_text: tuple[float, float] = (0.2, 0.28),
        importance_sampling_level: Literal["sequence", "token"] = "sequence",
        text_reduction: Literal["tokens", "sequences"] = "tokens",
        text_weight: float = 1.0,
        kl_image: float = 0.0,
        kl_image_form: Literal["published", "exact"] = "published",
        kl_text: float = 0.0,
        top_entropy_quantile: float = 1.0,
        first_step_ratio: Literal["measured", "one"] = "measured",
    ) -> None:
        if clip_image <= 0 or min(clip_text) <= 0:
            raise ValueError(f"clip_image={clip_image}, clip_text={clip_text}: a clip must be positive")
        if min(text_weight, kl_image, kl_text) < 0:
            raise ValueError(f"text_weight={text_weight}, kl_image={kl_image}, kl_text={kl_text}: none may be negative")
        if not 0 < top_entropy_quantile <= 1:
            raise ValueError(f"top_entropy_quantile={top_entropy_quantile}: give a share in (0, 1]; 1 keeps all tokens")
        self.clip_image = clip_image
        self.clip_text = clip_text
        self.importance_sampling_level = importance_sampling_level
        self.text_reduction = text_reduction
        self.text_weight = text_weight
        self.kl_image = kl_image
        self.kl_image_form = kl_image_form
        self.kl_text = kl_text
        self.top_entropy_quantile = top_entropy_quantile
        self.first_step_ratio = first_step_ratio

    @property
    def needs(self) -> Needs:
        return Needs(reference=self.kl_image > 0 or self.kl_text > 0, whole_samples=False)

    @property
    def clip_widths(self) -> ClipWidths:
        return ClipWidths(image=self.clip_image, text=min(self.clip_text))

    def count(
        self, groups: Sequence[Group], *, world_size: int = 1, reduce: Callable[[Tensor], Tensor] | None = None
    ) -> Counts:
        counts = super().count(groups, world_size=world_size, reduce=reduce)
        if self.top_entropy_quantile == 1:
            return counts
        return with_entropy_threshold(counts, groups, self.top_entropy_quantile, reduce)

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        """This micro-batch's share of the loss.

        The maxima `ratio_error/image` and `ratio_error/text` are of |ratio - 1|: before a rollout's first update
        they must be 0 to rounding (see project/callbacks/on_policy_gate.py).

        Raises:
            ValueError: if a KL weight is positive and the replay carries no reference.
        """
        image = self._image(inputs)
        text = self._text(inputs)
        return LossOutputs(
            loss=(image.loss + self.text_weight * inputs.text_weight * text.loss) * inputs.counts.world_size,
            metrics={**image.metrics, **text.metrics},
            maxima={**image.maxima, **text.maxima},
        )

    def _image(self, inputs: LossInputs) -> LossOutputs:
        replay, mask_RK = inputs.replay, inputs.replay.step_mask_RK
        denominator = max(inputs.counts.steps, 1)
        log_ratio_RK = _known(replay.image_log_prob_RK - replay.old_image_log_prob_RK, mask_RK)
        advantage_RK = inputs.image_advantage_B[replay.image_sample_R][:, None].expand_as(log_ratio_RK)
        loss_RK = clipped_loss(self._in_loss(log_ratio_RK, inputs), advantage_RK, self.clip_image, self.clip_image)
        metrics = {
            "loss/image": Mean.of(loss_RK, mask_RK),
            **_ratio_metrics("image", log_ratio_RK, advantage_RK, mask_RK, (self.clip_image, self.clip_image)),
        }
        loss = (loss_RK * mask_RK).sum() / denominator
        if self.kl_image:
            kl_RK = self._image_kl(replay)
            metrics["kl/image"] = Mean.of(kl_RK, mask_RK)
            loss = loss + self.kl_image * (kl_RK * mask_RK).sum() / denominator
        return LossOutputs(
            loss=loss, metrics=metrics, maxima={"ratio_error/image": _largest_error(log_ratio_RK, mask_RK)}
        )

    def _image_kl(self, replay: Replay) -> Tensor:
        if replay.reference is None:
            raise ValueError("kl_image needs the reference policy's replay (Replay.reference)")
        mask_RK = replay.step_mask_RK
        difference_RKLD = _known(replay.mean_RKLD - replay.reference.mean_RKLD, mask_RK[..., None, None])
        exact_RK = gaussian_kl(difference_RKLD, replay.std_RK.where(mask_RK, 1.0))
        return exact_RK if self.kl_image_form == "exact" else exact_RK * _known(-replay.dt_RK, mask_RK)

    def _text(self, inputs: LossInputs) -> LossOutputs:
        replay, mask_RT = inputs.replay, inputs.replay.token_mask_RT
        selected_RT = mask_RT & (replay.entropy_RT.detach() >= inputs.counts.entropy_threshold)
        weight_RT, denominator = self._text_weights(mask_RT, inputs.counts)
        log_ratio_RT = _known(replay.text_log_prob_RT - replay.old_text_log_prob_RT, selected_RT)
        if self.importance_sampling_level == "sequence":
            log_ratio_RT = sequence_mean(log_ratio_RT, selected_RT)
        advantage_RT = inputs.text_advantage_B[replay.text_sample_R][:, None].expand_as(log_ratio_RT)
        loss_RT = clipped_loss(self._in_loss(log_ratio_RT, inputs), advantage_RT, *self.clip_text) * selected_RT
        metrics = {
            "loss/text": Mean.of(loss_RT, weight_RT),
            "entropy": Mean.of(replay.entropy_RT, mask_RT),
            **_ratio_metrics("text", log_ratio_RT, advantage_RT, selected_RT, self.clip_text),
        }
        loss = (loss_RT * weight_RT).sum() / denominator
        if self.kl_text:
            if replay.reference is None:
                raise ValueError("kl_text needs the reference policy's replay (Replay.reference)")
            kl_RT = k3(_known(replay.reference.text_log_prob_RT - replay.text_log_prob_RT, mask_RT))
            metrics["kl/text"] = Mean.of(kl_RT, weight_RT)
            loss = loss + self.kl_text * (kl_RT * weight_RT).sum() / denominator
        return LossOutputs(
            loss=loss, metrics=metrics, maxima={"ratio_error/text": _largest_error(log_ratio_RT, selected_RT)}
        )

    def _in_loss(self, log_ratio: Tensor, inputs: LossInputs) -> Tensor:
        """The log-ratio that the loss uses, from the measured one: 0 with its gradient where the ratio is 1."""
        return log_ratio - log_ratio.detach() if inputs.first and self.first_step_ratio == "one" else log_ratio

    def _text_weights(self, mask_RT: Tensor, counts: Counts) -> tuple[Tensor, int]:
        """Weight of each token in the sum, and what the sum is divided by."""
        if self.text_reduction == "tokens":
            return mask_RT.float(), max(counts.tokens, 1)
        return mask_RT / mask_RT.sum(1, keepdim=True).clamp_min(1), max(counts.sequences, 1)


def clipped_loss(log_ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """`max(-A r, -A clip(r, 1 - low, 1 + high))` with r = exp(log_ratio), elementwise (PPO, arXiv 1707.06347)."""
    ratio = log_ratio.exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))


def clipped(log_ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Where the clip cuts the gradient: a good sample's ratio above, or a bad one's below."""
    excess = torch.expm1(log_ratio)
    return ((advantage > 0) & (excess > high)) | ((advantage < 0) & (excess < -low))


def sequence_mean(value_RT: Tensor, mask_RT: Tensor) -> Tensor:
    """Gives each token the mean over the marked tokens of its row; 0 in rows without any."""
    mean_R1 = (value_RT * mask_RT).sum(1, keepdim=True) / mask_RT.sum(1, keepdim=True).clamp_min(1)
    return mean_R1.expand_as(value_RT)


def gaussian_kl(difference_LD: Tensor, std: Tensor) -> Tensor:
    """KL between Gaussians of one std whose means differ by `difference` [..., L, D], per dimension: [...]."""
    return difference_LD.square().mean((-2, -1)) / (2 * std.square())


def k3(log_ratio: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) from a sample of the policy, with log_ratio = reference - policy; >= 0."""
    return torch.expm1(log_ratio) - log_ratio


def _known(value: Tensor, mask: Tensor) -> Tensor:
    """The value where it means something, else 0 (padding may hold anything, and must send no gradient)."""
    return torch.where(mask, value, 0.0)


def _ratio_metrics(
    kind: str, log_ratio: Tensor, advantage: Tensor, mask: Tensor, clip: tuple[float, float]
) -> dict[str, Mean]:
    return {
        f"ratio/{kind}": Mean.of(log_ratio.exp(), mask),
        f"mean_ratio_error/{kind}": Mean.of(torch.expm1(log_ratio).abs(), mask),
        f"clip_fraction/{kind}": Mean.of(clipped(log_ratio, advantage, *clip), mask),
    }


def _largest_error(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """max |ratio - 1| over what is marked; 0 if nothing is."""
    error = torch.expm1(log_ratio.detach()).abs()[mask]
    return torch.cat([error, error.new_zeros(1)]).max()
