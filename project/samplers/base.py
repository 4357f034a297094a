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

from project.core.randomness import keyed_generator
from project.samplers.schedule import sigmas


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """x -> x', a Gaussian with one standard deviation per row; everything fp32.

    `std_R` is the full standard deviation of x' (for Flow-SDE: with its sqrt(-dt)); `dt_R` = sigma' - sigma < 0.
    `log_prob_R` is the mean over latent dimensions of `-(x' - mean)^2 / (2 std^2)`; the constants drop out of
    every ratio. It is NaN where std is 0: a deterministic step has no density.
    """

    next_RLD: Tensor
    mean_RLD: Tensor
    std_R: Tensor
    dt_R: Tensor
    log_prob_R: Tensor


class Sampler(ABC):
    """A schedule of flow times, a stochastic transition, and the window in which it is used.

    Evaluations are numbered 0 .. N - 2; number i goes from sigma_N[i] to sigma_N[i + 1]. Noise and training only
    happen inside a window of evaluations, drawn once per update; elsewhere images follow the ODE.

    Args:
        num_steps: N, points of the schedule: N - 1 evaluations of the model.
        shift: how far the schedule is moved towards noise; 1 = evenly spaced.
        noise_level: a, how much noise a transition adds; 0 = the deterministic Euler step.
        window_size: evaluations that are stochastic and trained; the whole range if None.
        window_range: (lo, hi), evaluations lo .. hi - 1 from which windows are taken; all that can be stochastic
            if None. The first evaluation of the window is uniform in lo .. hi - window_size.

    Raises:
        ValueError: if the schedule is too short or the window does not fit.
    """

    def __init__(
        self,
        num_steps: int,
        *,
        shift: float = 3.0,
        noise_level: float = 0.7,
        window_size: int | None = None,
        window_range: tuple[int, int] | None = None,
    ) -> None:
        if num_steps < 2:
            raise ValueError(
                f"num_steps={num_steps}: a schedule needs at least its two ends, set num_steps to 2 or more"
            )
        if shift <= 0:
            raise ValueError(f"shift={shift}: the schedule's shift must be positive (3 is usual, 1 changes nothing)")
        if noise_level < 0:
            raise ValueError(f"noise_level={noise_level}: it must be 0 (deterministic) or positive (0.7 is usual)")
        self.num_steps = num_steps
        self.shift = shift
        self.noise_level = noise_level
        self._sigma_N = sigmas(num_steps, shift)
        self.window_range = (0, self.stochastic_evaluations) if window_range is None else tuple(window_range)
        self.window_size = self.window_range[1] - self.window_range[0] if window_size is None else window_size
        self._check_window()

    @property
    def sigma_N(self) -> Tensor:
        """Flow times from 1 to 0, fp32 [N] on the CPU."""
        return self._sigma_N

    @property
    def evaluations(self) -> int:
        """N - 1, evaluations of the model per image."""
        return self.num_steps - 1

    @property
    def stochastic_evaluations(self) -> int:
        """How many evaluations, counted from the first, can be stochastic."""
        return self.evaluations

    def window(self, seed: int, update: int) -> range:
        """Stochastic evaluations of an update: a function of the run's seed and the update, so equal on all ranks."""
        lo, hi = self.window_range
        starts = hi - self.window_size - lo + 1
        generator = keyed_generator(seed, update, "sde window")
        start = lo + int(torch.randint(starts, (), generator=generator))
        return range(start, start + self.window_size)

    @abstractmethod
    def moments(self, x_RLD: Tensor, v_RLD: Tensor, step_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [..., L, D], full standard deviation [...] and dt [...] of x', all fp32.

        Args:
            x_RLD, v_RLD: latents and velocity at the flow time of the evaluation, of any dtype.
            step_R: number of the evaluation per row, int64.
        """

    def sample(self, x_RLD: Tensor, v_RLD: Tensor, step_R: Tensor, noise_RLD: Tensor) -> Transition:
        """Take the transition with the given standard normal noise."""
        mean_RLD, std_R, dt_R = self.moments(x_RLD, v_RLD, step_R)
        next_RLD = mean_RLD + _per_row(std_R) * noise_RLD.float()
        return _transition(next_RLD, mean_RLD, std_R, dt_R)

    def log_prob(self, x_RLD: Tensor, v_RLD: Tensor, step_R: Tensor, next_RLD: Tensor) -> Transition:
        """The transition that was taken to `next_RLD`, under the velocity now.

        Raises:
            ValueError: if a transition is deterministic and so has no density.
        """
        mean_RLD, std_R, dt_R = self.moments(x_RLD, v_RLD, step_R)
        if bool((std_R == 0).any()):
            raise ValueError(
                f"{type(self).__name__} with noise_level={self.noise_level} and num_steps={self.num_steps} has a "
                f"deterministic transition among the evaluations {sorted(set(step_R.flatten().tolist()))}, which has "
                "no log-probability: train with a positive noise_level, inside the sampler's window"
            )
        return _transition(next_RLD.float(), mean_RLD, std_R, dt_R)

    def euler(self, x_RLD: Tensor, v_RLD: Tensor, step_R: Tensor) -> Tensor:
        """The deterministic step `x + v dt`, fp32."""
        sigma_R, next_R = self._ends(step_R)
        return x_RLD.float() + v_RLD.float() * _per_row(next_R - sigma_R)

    def _ends(self, step_R: Tensor) -> tuple[Tensor, Tensor]:
        """sigma and sigma' of evaluations, fp32 on the device of `step_R`."""
        sigma_N = self._sigma_N.to(step_R.device)
        return sigma_N[step_R], sigma_N[step_R + 1]

    def _check_window(self) -> None:
        lo, hi = self.window_range
        most = self.stochastic_evaluations
        if not 0 <= lo <= hi <= most:
            raise ValueError(
                f"window_range=({lo}, {hi}) does not fit: {type(self).__name__} with num_steps={self.num_steps} has "
                f"{most} stochastic evaluations, numbered from 0; take 0 <= lo < hi <= {most} or a larger num_steps"
            )
        if self.window_size > hi - lo or self.window_size < min(1, most):
            raise ValueError(
                f"window_size={self.window_size} does not fit into window_range=({lo}, {hi}), which holds {hi - lo} of "
                f"the {self.evaluations} evaluations (num_steps - 1): take a window_size from 1 to {hi - lo}, or a "
                "wider window_range or a larger num_steps"
            )


def mean_log_prob(next_RLD: Tensor, mean_RLD: Tensor, std_R: Tensor) -> Tensor:
    """Mean over L and D of `-(x' - mean)^2 / (2 std^2)`, [...]; NaN where std is 0."""
    square_R = (next_RLD - mean_RLD).square().mean((-2, -1))
    return torch.where(std_R > 0, -square_R / (2 * std_R.square()), math.nan)


def _transition(next_RLD: Tensor, mean_RLD: Tensor, std_R: Tensor, dt_R: Tensor) -> Transition:
    return Transition(
        next_RLD=next_RLD,
        mean_RLD=mean_RLD,
        std_R=std_R,
        dt_R=dt_R,
        log_prob_R=mean_log_prob(next_RLD, mean_RLD, std_R),
    )


def _per_row(value_R: Tensor) -> Tensor:
    return value_R[..., None, None]
