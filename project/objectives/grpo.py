"""The clipped policy-gradient loss of AlphaGRPO on reasoning text and image (arXiv 2605.12495).

Sequence-level ratios are those of GSPO (arXiv 2507.18071), the asymmetric clip that of DAPO (arXiv 2503.14476), the
entropy quantile that of arXiv 2506.01939, k3 is Schulman's estimator.
"""

from __future__ import annotations

from typing import Literal

from project.objectives.base import FirstStepRatio
from project.objectives.grpo_image import GRPOImage
from project.objectives.grpo_text import GRPOText
from project.objectives.joint import Joint
from project.objectives.step_kl import StepKL
from project.objectives.terms import TextReduction
from project.objectives.token_kl import TokenKL


class GRPO(Joint):
    """loss = image + kl_image * KL + text_weight * (text + kl_text * KL): `Joint` of the parts that the paper has.

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
        text_reduction: TextReduction = "tokens",
        text_weight: float = 1.0,
        kl_image: float = 0.0,
        kl_image_form: Literal["published", "exact"] = "published",
        kl_text: float = 0.0,
        top_entropy_quantile: float = 1.0,
        first_step_ratio: FirstStepRatio = "measured",
    ) -> None:
        if clip_image <= 0 or min(clip_text) <= 0:
            raise ValueError(f"clip_image={clip_image}, clip_text={clip_text}: a clip must be positive")
        if min(text_weight, kl_image, kl_text) < 0:
            raise ValueError(f"text_weight={text_weight}, kl_image={kl_image}, kl_text={kl_text}: none may be negative")
        super().__init__(
            image=GRPOImage(clip_image, first_step_ratio),
            text=GRPOText(clip_text, importance_sampling_level, text_reduction, top_entropy_quantile, first_step_ratio),
            text_weight=text_weight,
            image_penalty=StepKL(kl_image, kl_image_form) if kl_image else None,
            text_penalty=TokenKL(kl_text, text_reduction) if kl_text else None,
        )
