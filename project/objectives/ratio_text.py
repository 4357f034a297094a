"""What all losses of texts by ratios share. Shape suffixes: project/trajectory.py."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from torch import Tensor

from project.core.metrics import Mean
from project.objectives.base import Counts, FirstStepRatio, LossInputs, LossOutputs, Needs
from project.objectives.parts import TextPart
from project.objectives.terms import (
    TextReduction,
    first_ratio,
    known,
    largest_error,
    ratio_metrics,
    sequence_mean,
    token_weights,
)


class RatioText(TextPart):
    """The mean over the trained tokens, or the texts, of the update of a function of ratio and advantage.

    Args:
        importance_sampling_level: one ratio per sequence, `exp(mean over tokens of new - old)`, or one per token.
        text_reduction: the loss is the mean over all tokens of the update, or over its sequences (each the mean over
            its tokens).
        first_step_ratio: the ratio that the loss uses at the first optimizer step on a rollout. `measured`: as at every
            other step. `one`: 1 with the exact gradient, `exp(new - new.detach())`, so that no text (or token) is
            clipped. What is logged is always the measured ratio.
    """

    def __init__(
        self,
        importance_sampling_level: Literal["sequence", "token"],
        text_reduction: TextReduction,
        top_entropy_quantile: float = 1.0,
        first_step_ratio: FirstStepRatio = "measured",
    ) -> None:
        super().__init__(top_entropy_quantile)
        self.importance_sampling_level = importance_sampling_level
        self.text_reduction: TextReduction = text_reduction
        self._first_step_ratio = first_step_ratio

    @property
    def needs(self) -> Needs:
        return Needs(transitions=False, whole_samples=False)

    @property
    def first_step_ratio(self) -> FirstStepRatio:
        return self._first_step_ratio

    @abstractmethod
    def surrogate(self, log_ratio_RT: Tensor, advantage_RT: Tensor) -> Tensor:
        """The loss of each token."""

    @abstractmethod
    def cut(self, log_ratio_RT: Tensor, advantage_RT: Tensor) -> Tensor:
        """bool: the tokens whose gradient is not that of the plain ratio."""

    def weights(self, mask_RT: Tensor, counts: Counts) -> tuple[Tensor, float]:
        """Weight of each token in the sum, and what the sum is divided by."""
        return token_weights(mask_RT, counts, self.text_reduction)

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        replay, mask_RT = inputs.replay, inputs.replay.token_mask_RT
        selected_RT = mask_RT & (replay.entropy_RT.detach() >= inputs.counts.entropy_threshold)
        weight_RT, denominator = self.weights(mask_RT, inputs.counts)
        log_ratio_RT = known(replay.text_log_prob_RT - replay.old_text_log_prob_RT, selected_RT)
        if self.importance_sampling_level == "sequence":
            log_ratio_RT = sequence_mean(log_ratio_RT, selected_RT)
        advantage_RT = inputs.text_advantage_B[replay.text_sample_R][:, None].expand_as(log_ratio_RT)
        used_RT = first_ratio(log_ratio_RT, self.first_step_ratio, inputs.first)
        loss_RT = self.surrogate(used_RT, advantage_RT) * selected_RT
        return LossOutputs(
            loss=(loss_RT * weight_RT).sum() / denominator,
            metrics={
                "loss/text": Mean.of(loss_RT, weight_RT),
                "entropy": Mean.of(replay.entropy_RT, mask_RT),
                **ratio_metrics("text", log_ratio_RT, self.cut(log_ratio_RT, advantage_RT), selected_RT),
            },
            maxima={"ratio_error/text": largest_error(log_ratio_RT, selected_RT)},
        )
