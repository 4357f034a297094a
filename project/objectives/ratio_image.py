"""What all losses of pictures by ratios of their trained denoising steps share."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from project.core.metrics import Mean
from project.objectives.base import FirstStepRatio, LossInputs, LossOutputs, Needs
from project.objectives.parts import ImagePart
from project.objectives.terms import first_ratio, known, largest_error, ratio_metrics
from project.trajectory import Replay


class RatioImage(ImagePart):
    """The mean over the trained steps of the update of a function of ratio and advantage.

    Args:
        first_step_ratio: the ratio that the loss uses at the first optimizer step on a rollout. `measured`: as at every
            other step. `one`: 1 with the exact gradient, `exp(new - new.detach())`, so that no step is clipped.
            What is logged is always the measured ratio.
    """

    def __init__(self, first_step_ratio: FirstStepRatio = "measured") -> None:
        self._first_step_ratio = first_step_ratio

    @property
    def needs(self) -> Needs:
        return Needs(transitions=True, whole_samples=False)

    @property
    def first_step_ratio(self) -> FirstStepRatio:
        return self._first_step_ratio

    @abstractmethod
    def surrogate(self, log_ratio_RK: Tensor, advantage_RK: Tensor) -> Tensor:
        """The loss of each step."""

    @abstractmethod
    def cut(self, log_ratio_RK: Tensor, advantage_RK: Tensor) -> Tensor:
        """bool: the steps whose gradient is not that of the plain ratio."""

    def log_ratio(self, replay: Replay) -> Tensor:
        """Of each step; 0 where there is none."""
        return known(replay.image_log_prob_RK - replay.old_image_log_prob_RK, replay.step_mask_RK)

    def weighted(self, loss_RK: Tensor, replay: Replay) -> Tensor:
        """The losses of the steps with a weight each; all weigh 1 here."""
        return loss_RK

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        replay, mask_RK = inputs.replay, inputs.replay.step_mask_RK
        log_ratio_RK = self.log_ratio(replay)
        advantage_RK = inputs.image_advantage_B[replay.image_sample_R][:, None].expand_as(log_ratio_RK)
        used_RK = first_ratio(log_ratio_RK, self.first_step_ratio, inputs.first)
        loss_RK = self.weighted(self.surrogate(used_RK, advantage_RK), replay)
        return LossOutputs(
            loss=(loss_RK * mask_RK).sum() / max(inputs.counts.steps, 1),
            metrics={
                "loss/image": Mean.of(loss_RK, mask_RK),
                **ratio_metrics("image", log_ratio_RK, self.cut(log_ratio_RK, advantage_RK), mask_RK),
            },
            maxima={"ratio_error/image": largest_error(log_ratio_RK, mask_RK)},
        )
