from __future__ import annotations

import pytest

from project.samplers.flow_sde import FlowSDE
from project.samplers.sampler import Sampler
from project.samplers.schedule import Schedule
from project.samplers.sliding_window import SlidingWindow
from tests.helpers.sampling import at


def starts(updates, **settings):
    sampler = Sampler(schedule=Schedule(9), transition=FlowSDE(), window=SlidingWindow(2, (1, 7), **settings))
    steps = [sampler.steps(at(5, update, prompt=str(update))) for update in range(updates)]
    assert all(len(window) == 2 and window in sampler.windows for window in steps)
    return [window.start for window in steps]


def test_it_moves_from_early_to_late_and_begins_again():
    assert starts(12, every=2) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 1, 1]


def test_a_stride_ends_at_the_end_of_the_range():
    # places 1, 4, and 5 instead of 7, where the window would not fit
    assert starts(7, every=1, stride=3) == [1, 4, 5, 1, 4, 5, 1]


def test_it_may_stay_at_the_end():
    assert starts(8, every=1, stride=2, after_last="last") == [1, 3, 5, 5, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"every": 0}, "window.every=0"), ({"stride": 0}, "window.stride=0"), ({"after_last": "stop"}, "first or last")],
)
def test_impossible_moves_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SlidingWindow(**settings)
