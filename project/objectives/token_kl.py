"""KL divergence of the texts to the reference policy, estimated on the tokens that were written."""

from __future__ import annotations

from project.core.metrics import Mean
from project.objectives.base import LossInputs, LossOutputs, Needs
from project.objectives.parts import TextPenalty
from project.objectives.terms import TextReduction, k3, known, token_weights


class TokenKL(TextPenalty):
    """Schulman's k3 estimate `exp(d) - d - 1`, d = log_prob of the reference - log_prob.

    Args:
        text_reduction: the mean over all tokens of the update, or over its sequences (each the mean over its tokens).
    """

    def __init__(self, weight: float, text_reduction: TextReduction = "tokens") -> None:
        super().__init__(weight)
        self.text_reduction: TextReduction = text_reduction

    @property
    def needs(self) -> Needs:
        return Needs(reference=True, transitions=False, whole_samples=False)

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        replay, mask_RT = inputs.replay, inputs.replay.token_mask_RT
        if replay.reference is None:
            raise ValueError("TokenKL needs the reference policy's replay (Replay.reference)")
        weight_RT, denominator = token_weights(mask_RT, inputs.counts, self.text_reduction)
        kl_RT = k3(known(replay.reference.text_log_prob_RT - replay.text_log_prob_RT, mask_RT))
        loss = self.weight * (kl_RT * weight_RT).sum() / denominator
        return LossOutputs(loss=loss, metrics={"kl/text": Mean.of(kl_RT, weight_RT)})
