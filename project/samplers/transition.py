"""One transition of the denoising process, used twice: rollout samples it, replay evaluates it.

Both go through the same `moments`, in fp32, so that the log-probabilities of rollout and replay are the same
function of latents and velocity. Shape suffixes: project/trajectory.py; here `R` stands for any leading
dimensions (rows, or rows and steps).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A transition x -> x' that was taken: a Gaussian with one standard deviation per row; everything fp32.

    `std_R` is the full standard deviation of x' (for Flow-SDE: with its sqrt(-dt)); `dt_R` = sigma' - sigma < 0.
    `log_prob_R` is the mean over latent dimensions of `-(x' - mean)^2 / (2 std^2)`; the constants drop out of
    every ratio. It is NaN where std is 0: a deterministic step has no density.
    """

    next_RLD: Tensor
    mean_RLD: Tensor
    std_R: Tensor
    dt_R: Tensor
    log_prob_R: Tensor
    velocity_RLD: Tensor
    """That it was taken with."""


class Transition(ABC):
    """A stochastic step from one flow time to the next.

    Args:
        noise_level: a, amount of noise that a step adds; 0 = the deterministic Euler step.

    Raises:
        ValueError: if a is negative.
    """

    def __init__(self, noise_level: float = 0.7) -> None:
        if noise_level < 0:
            raise ValueError(f"noise_level={noise_level}: it must be 0 (deterministic) or positive (0.7 is usual)")
        self.noise_level = noise_level

    @abstractmethod
    def moments(self, x_RLD: Tensor, v_RLD: Tensor, sigma_R: Tensor, next_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [..., L, D], full standard deviation [...] and dt [...] of x', all fp32.

        Args:
            x_RLD, v_RLD: latents and velocity at flow time sigma, of any dtype.
            sigma_R, next_R: sigma and sigma', fp32.
        """

    def stochastic(self, sigma_N: Tensor) -> int:
        """How many evaluations of a schedule, counted from the first, can be stochastic."""
        return len(sigma_N) - 1

    def sample(self, x_RLD: Tensor, v_RLD: Tensor, sigma_R: Tensor, next_R: Tensor, noise_RLD: Tensor) -> Moved:
        """Take the transition with the given standard normal noise."""
        mean_RLD, std_R, dt_R = self.moments(x_RLD, v_RLD, sigma_R, next_R)
        return _moved(mean_RLD + std_R[..., None, None] * noise_RLD.float(), mean_RLD, std_R, dt_R, v_RLD)

    def log_prob(self, x_RLD: Tensor, v_RLD: Tensor, sigma_R: Tensor, next_R: Tensor, next_RLD: Tensor) -> Moved:
        """The transition that was taken to `next_RLD`, under the given velocity.

        Raises:
            ValueError: if a transition is deterministic and so has no density.
        """
        mean_RLD, std_R, dt_R = self.moments(x_RLD, v_RLD, sigma_R, next_R)
        if bool((std_R == 0).any()):
            deterministic = sorted(set(sigma_R.expand_as(std_R)[std_R == 0].tolist()))
            raise ValueError(
                f"{type(self).__name__} with noise_level={self.noise_level} is deterministic at the flow times "
                f"{deterministic}, so it has no log-probability there: train with a positive noise_level, inside the "
                "sampler's window"
            )
        return _moved(next_RLD.float(), mean_RLD, std_R, dt_R, v_RLD)


def mean_log_prob(next_RLD: Tensor, mean_RLD: Tensor, std_R: Tensor) -> Tensor:
    """Mean over L and D of `-(x' - mean)^2 / (2 std^2)`, [...]; NaN where std is 0."""
    square_R = (next_RLD - mean_RLD).square().mean((-2, -1))
    return torch.where(std_R > 0, -square_R / (2 * std_R.square()), math.nan)


def _moved(next_RLD: Tensor, mean_RLD: Tensor, std_R: Tensor, dt_R: Tensor, v_RLD: Tensor) -> Moved:
    return Moved(
        next_RLD=next_RLD,
        mean_RLD=mean_RLD,
        std_R=std_R,
        dt_R=dt_R,
        log_prob_R=mean_log_prob(next_RLD, mean_RLD, std_R),
        velocity_RLD=v_RLD.float(),
    )
