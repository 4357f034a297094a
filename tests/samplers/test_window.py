"""Windows of trained steps: where they lie, and those that do not fit."""

from __future__ import annotations

import pytest
import torch

from project.samplers.flow_cps import FlowCPS
from project.samplers.flow_sde import FlowSDE
from project.samplers.sampler import Sampler
from project.samplers.schedule import Schedule
from project.samplers.window import Window
from tests.helpers.sampling import at, ode, sde


def test_windows_are_uniform_contiguous_and_keyed_by_seed_and_update():
    sampler = sde(16, 5, (2, 9))
    windows = [sampler.steps(at(0, update)) for update in range(600)]
    assert all(len(window) == 5 and window.step == 1 for window in windows)
    starts = torch.bincount(torch.tensor([window.start for window in windows]), minlength=5)
    assert starts[:2].sum() == 0 and (starts[2:] > 150).all() and len(starts) == 5
    assert windows == [sampler.steps(at(0, update)) for update in range(600)]
    assert windows != [sampler.steps(at(1, update)) for update in range(600)]
    assert set(windows) == set(sampler.windows)


@pytest.mark.parametrize(("drawn", "number"), [("prompt", 5), ("update", 1)])
def test_a_window_is_drawn_for_every_prompt_or_for_the_update(drawn, number):
    sampler = sde(16, 5, (2, 11), drawn=drawn)
    keys = [at(0, 3, prompt=str(n), sample=g) for n in range(40) for g in range(3)]
    windows = [sampler.steps(key) for key in keys]
    assert len(set(windows)) == number
    assert all(len({windows[3 * n], windows[3 * n + 1], windows[3 * n + 2]}) == 1 for n in range(40)), "of a group"


def test_a_window_is_drawn_in_a_known_way():
    with pytest.raises(ValueError, match=r"window\.drawn='rank' is unknown: choose prompt or update"):
        Window(2, (0, 5), drawn="rank")


def test_published_window_is_ten_of_the_first_eleven():
    sampler = sde(16, 10, (0, 11))
    assert {sampler.steps(at(0, update)) for update in range(50)} == {range(0, 10), range(1, 11)}


def test_window_defaults_to_all_that_can_be_stochastic():
    assert sde(8).steps(at(0, 0)) == range(0, 7)
    assert sde(8, transition=FlowCPS()).steps(at(0, 0)) == range(0, 6)
    assert ode(8).steps(at(0, 0)) == range(0)


def test_a_window_that_moves_is_a_small_class():
    class Sliding(Window):
        """From early to late evaluations, one further every update."""

        def place(self, first, last, key):
            return min(first + key.update, last)

    sampler = Sampler(schedule=Schedule(8), transition=FlowSDE(), window=Sliding(2, (1, 5)))
    assert [sampler.steps(at(0, update)).start for update in range(5)] == [1, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("size", "place", "message"),
    [
        (6, (0, 5), "size from 1 to 5"),
        (0, None, "window.size=0"),
        (10, None, "larger num_steps"),
        (None, (0, 10), "larger num_steps"),
        (None, (-1, 3), "numbered from 0"),
        (None, (3, 3), "does not fit"),
    ],
)
@pytest.mark.parametrize("transition", [FlowSDE, FlowCPS])
def test_windows_that_do_not_fit_are_refused_at_construction(transition, size, place, message):
    with pytest.raises(ValueError, match=message):
        sde(10, size, place, transition=transition())
