"""How pictures are denoised: a schedule of flow times, a stochastic transition, and the window that it is used in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from project.samplers.schedule import Schedule
from project.samplers.transition import Moved, Transition
from project.samplers.window import Window
from project.trajectory import SampleKey


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Takes stochastic steps, which are trained, inside a window of evaluations; elsewhere pictures follow the ODE.

    Evaluations are numbered 0 .. N - 2; number i goes from sigma_N[i] to sigma_N[i + 1].

    Args:
        schedule: flow times of the evaluations.
        transition: the stochastic step inside the window; None = the ODE everywhere, and no picture can be trained.
        window: evaluations that are stochastic and trained; if None, all that can be stochastic.

    Raises:
        ValueError: if the window does not fit the schedule.
    """

    schedule: Schedule
    transition: Transition | None = None
    window: Window | None = None

    def __post_init__(self) -> None:
        if self.transition is not None:
            self._window.fitted(self.transition.stochastic(self.sigma_N))

    @property
    def sigma_N(self) -> Tensor:
        """Flow times from 1 to 0, fp32 [N] on the CPU."""
        return self.schedule.sigma_N

    @property
    def evaluations(self) -> int:
        """N - 1, evaluations of the model per picture."""
        return self.schedule.evaluations

    @property
    def trains(self) -> bool:
        """Whether it has stochastic steps; only these can be trained."""
        return self.transition is not None and self.transition.noise_level > 0

    @property
    def window_size(self) -> int:
        """Evaluations in a window; 0 without a transition."""
        return len(self.windows[0])

    @property
    def windows(self) -> Sequence[Sequence[int]]:
        """Every place that the window can have; an empty one without a transition."""
        if self.transition is None:
            return [range(0)]
        return self._window.places(self.transition.stochastic(self.sigma_N))

    def steps(self, key: SampleKey) -> Sequence[int]:
        """Stochastic evaluations of a sample, the same for all samples of a group."""
        if self.transition is None:
            return range(0)
        return self._window.steps(self.transition.stochastic(self.sigma_N), key)

    def sample(self, x_RLD: Tensor, v_RLD: Tensor, step_R: Tensor, noise_RLD: Tensor) -> Moved:
        """Take the stochastic transition of the evaluations `step_R` [...] with the given standard normal noise."""
        return self._stochastic.sample(x_RLD, v_RLD, *self._ends(step_R), noise_RLD)

    def log_prob(self, x_RLD: Tensor, v_RLD: Tensor, step_R: Tensor, next_RLD: Tensor) -> Moved:
        """The transitions that were taken to `next_RLD`, under the given velocity.

        Raises:
            ValueError: if one of them is deterministic and so has no density.
        """
        return self._stochastic.log_prob(x_RLD, v_RLD, *self._ends(step_R), next_RLD)

    def euler(self, x_RLD: Tensor, v_RLD: Tensor, step_R: Tensor) -> Tensor:
        """The deterministic step `x + v dt`, fp32."""
        sigma_R, next_R = self._ends(step_R)
        return x_RLD.float() + v_RLD.float() * (next_R - sigma_R)[..., None, None]

    @property
    def _window(self) -> Window:
        return self.window or Window()

    @property
    def _stochastic(self) -> Transition:
        if self.transition is None:
            raise ValueError(
                "the sampler has no transition, so it only follows the ODE and has no log-probabilities: name one, "
                "e.g. transition: project.samplers.FlowSDE"
            )
        return self.transition

    def _ends(self, step_R: Tensor) -> tuple[Tensor, Tensor]:
        """sigma and sigma' of evaluations, fp32 on the device of `step_R`."""
        sigma_N = self.sigma_N.to(step_R.device)
        return sigma_N[step_R], sigma_N[step_R + 1]
