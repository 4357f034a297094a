"""What all losses of pictures by the forward process share: no window of random steps, any solver in the rollout."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from project.objectives.base import LossInputs, LossOutputs, Needs
from project.objectives.noised import ForwardProcess, Noised, velocity_of
from project.objectives.parts import ImagePart


class ForwardImage(ImagePart):
    """A loss of the velocity at noised states of the drawn pictures, summed over pictures, divided by the samples.

    Args:
        states: noised states of each picture in an update, one in each equal part of the flow times.
        flow_times: (lo, hi) between which they lie; 1 is pure noise.
        guided: train the velocity with the guidance of the task, with which pictures are drawn. Without it the task
            must draw without guidance too.

    Raises:
        ValueError: if there are no states, or the flow times are no part of [0, 1].
    """

    def __init__(self, states: int = 4, flow_times: tuple[float, float] = (0.0, 1.0), guided: bool = True) -> None:
        self.process = ForwardProcess(states=states, flow_times=flow_times)
        self.guided = guided

    @property
    def needs(self) -> Needs:
        return Needs(transitions=False, old_velocity=True, unguided=not self.guided, states=self.process.states)

    @abstractmethod
    def loss(self, noised: Noised, v_RKLD: Tensor, old_RKLD: Tensor, advantage_R1: Tensor) -> LossOutputs:
        """The sum over pictures of a loss of the velocity.

        Args:
            v_RKLD: velocity under the weights now, fp32.
            old_RKLD: velocity under the weights of the rollout, fp32, without gradient.
        """

    def __call__(self, inputs: LossInputs) -> LossOutputs:
        replay = inputs.replay
        noised = self.process.noised(inputs, "forward process")
        velocity = velocity_of(replay.velocity, "Replay.velocity")
        v_RKLD = velocity(noised.x_RKLD, noised.sigma_K, guided=self.guided).float()
        if inputs.first:
            old_RKLD = v_RKLD.detach()
        else:
            old = velocity_of(replay.old_velocity, "Replay.old_velocity")
            old_RKLD = old(noised.x_RKLD, noised.sigma_K, guided=self.guided).float()
        outputs = self.loss(noised, v_RKLD, old_RKLD, inputs.image_advantage_B[replay.image_sample_R][:, None])
        return LossOutputs(
            loss=outputs.loss / max(inputs.counts.samples, 1), metrics=outputs.metrics, maxima=outputs.maxima
        )
