"""KL divergence of the trained denoising steps to the reference policy."""

from __future__ import annotations

from typing import Literal

from project.core.metrics import Mean
from project.objectives.base import LossInputs, LossOutputs, Needs
from project.objectives.parts import ImagePenalty
from project.objectives.terms import gaussian_kl, known


class StepKL(ImagePenalty):
    """Mean over the trained steps of the KL divergence between two Gaussians of one std, per latent.

    Args:
        form: exact Gaussian KL, or as published: times -dt (for Flow-SDE the std in the denominator is then the one
            before sqrt(-dt)).
    """

    def __init__(self, weight: float, form: Literal["published", "exact"] = "published") -> None:
        super().__init__(weight)
        self.form = form

    @property
    def needs(self) -> Needs:
        return Needs(reference=True, transitions=True, whole_samples=False)

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        replay, mask_RK = inputs.replay, inputs.replay.step_mask_RK
        if replay.reference is None:
            raise ValueError("StepKL needs the reference policy's replay (Replay.reference)")
        difference_RKLD = known(replay.mean_RKLD - replay.reference.mean_RKLD, mask_RK[..., None, None])
        kl_RK = gaussian_kl(difference_RKLD, replay.std_RK.where(mask_RK, 1.0))
        if self.form == "published":
            kl_RK = kl_RK * known(-replay.dt_RK, mask_RK)
        loss = self.weight * (kl_RK * mask_RK).sum() / max(inputs.counts.steps, 1)
        return LossOutputs(loss=loss, metrics={"kl/image": Mean.of(kl_RK, mask_RK)})
