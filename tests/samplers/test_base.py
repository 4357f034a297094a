"""What holds for every sampler: windows, fp32, one transition for sampling and replay."""

from __future__ import annotations

import math

import pytest
import torch

from project.samplers.flow_cps import FlowCPS
from project.samplers.flow_ode import FlowODE
from project.samplers.flow_sde import FlowSDE

STOCHASTIC = [FlowSDE, FlowCPS]


def rows(*leading, length=6, size=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*leading, length, size, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_replay_evaluates_the_transition_that_was_sampled(sampler):
    sampler = sampler(10)
    x, v, noise = rows(3)
    step = torch.tensor([0, 4, 7])
    taken = sampler.sample(x, v, step, noise)
    again = sampler.log_prob(x, v, step, taken.next_RLD)
    for name in ("next_RLD", "mean_RLD", "std_R", "dt_R", "log_prob_R"):
        assert torch.equal(getattr(taken, name), getattr(again, name)), name


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_log_prob_is_the_normal_density_averaged_less_its_constant(sampler):
    sampler = sampler(10)
    x, v, noise = rows(4)
    step = torch.tensor([0, 1, 5, 7])
    taken = sampler.sample(x, v, step, noise)
    std = taken.std_R[:, None, None].double()
    density = torch.distributions.Normal(taken.mean_RLD.double(), std).log_prob(taken.next_RLD.double())
    constant = -torch.log(std * math.sqrt(2 * math.pi))[:, 0, 0]
    torch.testing.assert_close(taken.log_prob_R.double(), density.mean((1, 2)) - constant, rtol=1e-4, atol=1e-5)
    # x' - mean = std * noise, so it is also minus half the mean square of the noise
    torch.testing.assert_close(taken.log_prob_R, -noise.square().mean((1, 2)) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_rows_and_steps_may_both_lead(sampler):
    sampler = sampler(10)
    x, v, noise = rows(2, 3)
    step = torch.tensor([[0, 1, 2], [3, 4, 5]])
    taken = sampler.sample(x, v, step, noise)
    assert taken.log_prob_R.shape == taken.std_R.shape == (2, 3)
    alone = sampler.sample(x[1, 2:], v[1, 2:], step[1, 2:], noise[1, 2:])
    torch.testing.assert_close(alone.next_RLD[0], taken.next_RLD[1, 2])
    torch.testing.assert_close(alone.log_prob_R[0], taken.log_prob_R[1, 2])


@pytest.mark.parametrize("sampler", [*STOCHASTIC, FlowODE])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_everything_is_fp32_whatever_comes_in(sampler, dtype):
    sampler = sampler(6)
    x, v, noise = (part.to(dtype) for part in rows(1))
    step = torch.tensor([2])
    taken = sampler.sample(x, v, step, noise)
    exact = sampler.sample(x.float(), v.float(), step, noise.float())
    for name in ("next_RLD", "mean_RLD", "std_R", "dt_R", "log_prob_R"):
        assert getattr(taken, name).dtype == torch.float32, name
    assert torch.equal(taken.next_RLD, exact.next_RLD)
    assert sampler.euler(x, v, step).dtype == torch.float32


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_without_noise_the_mean_is_euler_and_there_is_no_log_prob(sampler):
    sampler = sampler(10, noise_level=0.0)
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
    step = FlowSDE(5, shift=1.0).euler(torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 8.0), torch.tensor([1]))
    assert step.item() == 0.0


def test_gradient_of_log_prob_reaches_the_velocity():
    sampler = FlowSDE(10)
    x, v, noise = rows(1)
    taken = sampler.sample(x, v, torch.tensor([3]), noise)
    v.requires_grad_()
    sampler.log_prob(x, v, torch.tensor([3]), taken.next_RLD).log_prob_R.sum().backward()
    # d/dv of -(x' - mean)^2 / (2 std^2 n) is noise / std * dmean/dv / n
    zero = torch.zeros(1, 1, 1)
    slope = sampler.moments(zero, zero + 1, torch.tensor([3]))[0].item()
    torch.testing.assert_close(v.grad, noise / taken.std_R * slope / 24, rtol=1e-4, atol=1e-6)


def test_windows_are_uniform_contiguous_and_keyed_by_seed_and_update():
    sampler = FlowSDE(16, window_size=5, window_range=(2, 9))
    windows = [sampler.window(0, update) for update in range(600)]
    assert all(len(window) == 5 and window.step == 1 for window in windows)
    starts = torch.bincount(torch.tensor([window.start for window in windows]), minlength=5)
    assert starts[:2].sum() == 0 and (starts[2:] > 150).all() and len(starts) == 5
    assert windows == [sampler.window(0, update) for update in range(600)]
    assert windows != [sampler.window(1, update) for update in range(600)]


def test_published_window_is_ten_of_the_first_eleven():
    sampler = FlowSDE(16, window_size=10, window_range=(0, 11))
    assert {sampler.window(0, update) for update in range(50)} == {range(0, 10), range(1, 11)}


def test_window_defaults_to_all_that_can_be_stochastic():
    assert FlowSDE(8).window(0, 0) == range(0, 7)
    assert FlowCPS(8).window(0, 0) == range(0, 6)
    assert FlowODE(8).window(0, 0) == range(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_size": 6, "window_range": (0, 5)}, "window_size from 1 to 5"),
        ({"window_size": 0}, "window_size=0"),
        ({"window_size": 10}, "larger num_steps"),
        ({"window_range": (0, 10)}, "larger num_steps"),
        ({"window_range": (-1, 3)}, "numbered from 0"),
        ({"window_range": (3, 3)}, "does not fit"),
        ({"noise_level": -0.1}, "noise_level"),
        ({"shift": 0.0}, "shift"),
    ],
)
@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_impossible_settings_are_refused_at_construction(sampler, settings, message):
    with pytest.raises(ValueError, match=message):
        sampler(10, **settings)


def test_a_schedule_needs_two_points():
    with pytest.raises(ValueError, match="num_steps to 2 or more"):
        FlowODE(1)
