"""What holds for every transition: fp32, the same for sampling and replay; what a sampler without one does."""

from __future__ import annotations

import math

import pytest
import torch

from project.samplers.flow_cps import FlowCPS
from project.samplers.flow_sde import FlowSDE
from project.samplers.sampler import Sampler
from project.samplers.schedule import Schedule
from tests.helpers.sampling import at, ode, sde

STOCHASTIC = [FlowSDE, FlowCPS]


def rows(*leading, length=6, size=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*leading, length, size, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("transition", STOCHASTIC)
def test_replay_evaluates_the_transition_that_was_sampled(transition):
    sampler = sde(10, transition=transition())
    x, v, noise = rows(3)
    step = torch.tensor([0, 4, 7])
    taken = sampler.sample(x, v, step, noise)
    again = sampler.log_prob(x, v, step, taken.next_RLD)
    for name in ("next_RLD", "mean_RLD", "std_R", "dt_R", "log_prob_R"):
        assert torch.equal(getattr(taken, name), getattr(again, name)), name


@pytest.mark.parametrize("transition", STOCHASTIC)
def test_log_prob_is_the_normal_density_averaged_less_its_constant(transition):
    sampler = sde(10, transition=transition())
    x, v, noise = rows(4)
    step = torch.tensor([0, 1, 5, 7])
    taken = sampler.sample(x, v, step, noise)
    std = taken.std_R[:, None, None].double()
    density = torch.distributions.Normal(taken.mean_RLD.double(), std).log_prob(taken.next_RLD.double())
    constant = -torch.log(std * math.sqrt(2 * math.pi))[:, 0, 0]
    torch.testing.assert_close(taken.log_prob_R.double(), density.mean((1, 2)) - constant, rtol=1e-4, atol=1e-5)
    # x' - mean = std * noise, so it is also minus half the mean square of the noise
    torch.testing.assert_close(taken.log_prob_R, -noise.square().mean((1, 2)) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transition", STOCHASTIC)
def test_rows_and_steps_may_both_lead(transition):
    sampler = sde(10, transition=transition())
    x, v, noise = rows(2, 3)
    step = torch.tensor([[0, 1, 2], [3, 4, 5]])
    taken = sampler.sample(x, v, step, noise)
    assert taken.log_prob_R.shape == taken.std_R.shape == (2, 3)
    alone = sampler.sample(x[1, 2:], v[1, 2:], step[1, 2:], noise[1, 2:])
    torch.testing.assert_close(alone.next_RLD[0], taken.next_RLD[1, 2])
    torch.testing.assert_close(alone.log_prob_R[0], taken.log_prob_R[1, 2])


@pytest.mark.parametrize("transition", STOCHASTIC)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_everything_is_fp32_whatever_comes_in(transition, dtype):
    sampler = sde(6, transition=transition())
    x, v, noise = (part.to(dtype) for part in rows(1))
    step = torch.tensor([2])
    taken = sampler.sample(x, v, step, noise)
    exact = sampler.sample(x.float(), v.float(), step, noise.float())
    for name in ("next_RLD", "mean_RLD", "std_R", "dt_R", "log_prob_R"):
        assert getattr(taken, name).dtype == torch.float32, name
    assert torch.equal(taken.next_RLD, exact.next_RLD)
    assert sampler.euler(x, v, step).dtype == torch.float32


@pytest.mark.parametrize("transition", STOCHASTIC)
def test_without_noise_the_mean_is_euler_and_there_is_no_log_prob(transition):
    sampler = sde(10, transition=transition(0.0))
    x, v, noise = rows(9)
    step = torch.arange(9)
    taken = sampler.sample(x, v, step, noise)
    torch.testing.assert_close(taken.mean_RLD, sampler.euler(x, v, step), atol=2e-6, rtol=0)
    assert torch.equal(taken.next_RLD, taken.mean_RLD)
    assert taken.std_R.eq(0).all() and taken.log_prob_R.isnan().all()
    with pytest.raises(ValueError, match="positive noise_level"):
        sampler.log_prob(x, v, step, taken.next_RLD)


def test_euler_by_hand():
    # sigma 0.75 -> 0.5: x = 2, v = 8 gives 2 - 0.25 * 8 = 0
    step = ode(5, shift=1.0).euler(torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 8.0), torch.tensor([1]))
    assert step.item() == 0.0


def test_gradient_of_log_prob_reaches_the_velocity():
    sampler = sde(10)
    x, v, noise = rows(1)
    taken = sampler.sample(x, v, torch.tensor([3]), noise)
    v.requires_grad_()
    sampler.log_prob(x, v, torch.tensor([3]), taken.next_RLD).log_prob_R.sum().backward()
    # d/dv of -(x' - mean)^2 / (2 std^2 n) is noise / std * dmean/dv / n
    zero = torch.zeros(1, 1, 1)
    slope = sampler.transition.moments(zero, zero + 1, *sampler.sigma_N[3:5, None])[0].item()
    torch.testing.assert_close(v.grad, noise / taken.std_R * slope / 24, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("num_steps", "ratio"), [(16, 0.67), (640, 0.99)])
def test_discretisation_of_the_ode_on_gaussian_data(num_steps, ratio, gaussian_variance):
    assert gaussian_variance(ode(num_steps), 0.25) / 0.25 == pytest.approx(ratio, abs=0.005)


def test_a_straight_path_is_followed_exactly_by_any_number_of_steps():
    noise, data = torch.randn(1, 5, 3), torch.randn(1, 5, 3)
    for num_steps in (2, 5, 17):
        sampler, x = ode(num_steps), noise
        for step in range(sampler.evaluations):
            x = sampler.euler(x, noise - data, torch.tensor([step]))
        torch.testing.assert_close(x, data, atol=2e-6, rtol=0)


def test_without_a_transition_nothing_can_be_trained():
    x = torch.ones(1, 2, 2)
    sampler = ode(4)
    assert not sampler.trains and sampler.window_size == 0 and sampler.steps(at(0, 0)) == range(0)
    with pytest.raises(ValueError, match=r"no log-probabilities: name one, e.g. transition: project.samplers.FlowSDE"):
        sampler.log_prob(x, x, torch.tensor([0]), x)


def test_a_schedule_of_its_own_is_a_small_class():
    class Karras(Schedule):
        """Spaced evenly in sigma ** (1 / rho)."""

        @property
        def sigma_N(self):
            return torch.linspace(1, 0, self.num_steps) ** 7

    sampler = Sampler(schedule=Karras(5), transition=FlowSDE())
    assert torch.allclose(sampler.sigma_N, torch.tensor([1.0, 0.75**7, 0.5**7, 0.25**7, 0.0]))
    x = torch.full((1, 1, 1), 2.0)
    assert sampler.euler(x, x, torch.tensor([0])).item() == pytest.approx(2 + 2 * (0.75**7 - 1))
    assert sampler.sample(x, x, torch.tensor([0]), x).dt_R.item() == pytest.approx(0.75**7 - 1)


@pytest.mark.parametrize("transition", STOCHASTIC)
def test_negative_noise_is_refused(transition):
    with pytest.raises(ValueError, match="noise_level"):
        transition(-0.1)
