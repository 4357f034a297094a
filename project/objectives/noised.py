"""States of the forward process: the clean latents of a rollout, noised anew. Shape suffixes: project/trajectory.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from project.core.randomness import keyed_generator, normal
from project.objectives.base import LossInputs
from project.trajectory import Velocity


@dataclass(frozen=True, slots=True, kw_only=True)
class Noised:
    """`x = (1 - sigma) clean + sigma noise`, of K flow times for each picture; its velocity is `noise - clean`."""

    x_RKLD: Tensor
    sigma_K: Tensor
    """On the CPU, equal for all pictures of an update."""
    clean_R1LD: Tensor
    noise_RKLD: Tensor

    @property
    def target_RKLD(self) -> Tensor:
        """The velocity that leads from the clean latents to the noise."""
        return self.noise_RKLD - self.clean_R1LD

    def clean(self, v_RKLD: Tensor) -> Tensor:
        """The clean latents that a velocity points at: `x - sigma v`."""
        return self.x_RKLD - self.sigma_K.to(v_RKLD.device)[:, None, None] * v_RKLD


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardProcess:
    """How states are noised: at one random flow time in each of `states` equal parts of `flow_times`.

    Flow times are drawn once for an update, and noise for each picture, both as a hash of the samples' keys: the loss
    depends on no micro-batch and no rank, and all optimizer steps on a rollout see the same states.
    """

    states: int
    flow_times: tuple[float, float]

    def __post_init__(self) -> None:
        if self.states < 1:
            raise ValueError(f"states={self.states}: a loss of the forward process needs at least 1 noised state")
        if not 0 <= self.flow_times[0] < self.flow_times[1] <= 1:
            raise ValueError(f"flow_times={self.flow_times}: give (lo, hi) with 0 <= lo < hi <= 1")

    def noised(self, inputs: LossInputs, stream: str) -> Noised:
        """States of the pictures of a micro-batch.

        Args:
            stream: names the noise, so that two parts of an objective draw independent ones.

        Raises:
            ValueError: if the inputs have no keys or the replay no clean latents.
        """
        clean_RLD = inputs.replay.clean_RLD
        if clean_RLD is None or not inputs.keys:
            raise ValueError(
                "a loss of the forward process needs Replay.clean_RLD and LossInputs.keys: the task must keep the "
                "clean latents of its pictures"
            )
        first = inputs.keys[0]
        generator = keyed_generator(first.seed, first.update, stream, "flow times")
        lo, hi = self.flow_times
        place_K = (torch.arange(self.states) + torch.rand(self.states, generator=generator)) / self.states
        sigma_K = lo + (hi - lo) * place_K
        keys = [inputs.keys[n] for n in inputs.replay.image_sample_R.tolist()]
        noise_RKLD = normal(keys, stream, self.states, *clean_RLD.shape[1:], round=inputs.round).to(clean_RLD.device)
        clean_R1LD = clean_RLD.float()[:, None]
        weight_K11 = sigma_K.to(clean_RLD.device)[:, None, None]
        return Noised(
            x_RKLD=(1 - weight_K11) * clean_R1LD + weight_K11 * noise_RKLD,
            sigma_K=sigma_K,
            clean_R1LD=clean_R1LD,
            noise_RKLD=noise_RKLD,
        )


def velocity_of(velocity: Velocity | None, name: str) -> Velocity:
    """Raises ValueError if a replay has none."""
    if velocity is None:
        raise ValueError(f"a loss of the forward process needs {name}, which the replay lacks")
    return velocity
