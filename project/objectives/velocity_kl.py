"""A penalty on the velocity, which holds off reward hacking better than the KL of the steps (UniGRPO, 2603.23500)."""

from __future__ import annotations

from typing import Literal

import torch

from project.core.metrics import Mean
from project.objectives.base import LossInputs, LossOutputs, Needs
from project.objectives.noised import ForwardProcess, velocity_of
from project.objectives.parts import ImagePenalty
from project.objectives.terms import known


class VelocityKL(ImagePenalty):
    """`mean |v - v_reference|^2` over latents: every flow time weighs the same, whatever the noise of its step is.

    Args:
        at: the trained `steps` of the rollout, whose velocity the replay has already; or `noised` states of the drawn
            pictures, which work without random steps but cost an extra forward.
        states: noised states of each picture.
        flow_times: (lo, hi) between which they lie; 1 is pure noise.
        guided: compare velocities with the guidance of the task; without it only at noised states.

    Raises:
        ValueError: if there are no states, the flow times are no part of [0, 1], or steps are compared unguided.
    """

    def __init__(
        self,
        weight: float,
        at: Literal["steps", "noised"] = "steps",
        states: int = 2,
        flow_times: tuple[float, float] = (0.0, 1.0),
        guided: bool = True,
    ) -> None:
        super().__init__(weight)
        if at == "steps" and not guided:
            raise ValueError(
                "at=steps compares the velocities of the rollout's steps, which are guided: take at=noised"
            )
        self.at = at
        self.process = ForwardProcess(states=states, flow_times=flow_times)
        self.guided = guided

    @property
    def needs(self) -> Needs:
        at_steps = self.at == "steps"
        return Needs(reference=True, transitions=at_steps, states=0 if at_steps else self.process.states)

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        if inputs.replay.reference is None:
            raise ValueError("VelocityKL needs the reference policy's replay (Replay.reference)")
        return self._at_steps(inputs) if self.at == "steps" else self._at_noised(inputs)

    def _at_steps(self, inputs: LossInputs) -> LossOutputs:
        replay, mask_RK = inputs.replay, inputs.replay.step_mask_RK
        of_reference = None if replay.reference is None else replay.reference.velocity_RKLD
        if replay.velocity_RKLD is None or of_reference is None:
            raise ValueError("VelocityKL at the trained steps needs Replay.velocity_RKLD of both policies")
        difference_RKLD = known(replay.velocity_RKLD - of_reference, mask_RK[..., None, None])
        kl_RK = difference_RKLD.square().mean((-2, -1))
        loss = self.weight * (kl_RK * mask_RK).sum() / max(inputs.counts.steps, 1)
        return LossOutputs(loss=loss, metrics={"kl/velocity": Mean.of(kl_RK, mask_RK)})

    def _at_noised(self, inputs: LossInputs) -> LossOutputs:
        assert inputs.replay.reference is not None
        noised = self.process.noised(inputs, "velocity penalty")
        now = velocity_of(inputs.replay.velocity, "Replay.velocity")
        reference = velocity_of(inputs.replay.reference.velocity, "the velocity of Replay.reference")
        reference_RKLD = reference(noised.x_RKLD, noised.sigma_K, guided=self.guided)
        v_RKLD = now(noised.x_RKLD, noised.sigma_K, guided=self.guided)
        kl_RK = (v_RKLD - reference_RKLD).square().mean((-2, -1))
        loss = self.weight * kl_RK.mean(1).sum() / max(inputs.counts.samples, 1)
        return LossOutputs(loss=loss, metrics={"kl/velocity": Mean.of(kl_RK, torch.ones_like(kl_RK))})
