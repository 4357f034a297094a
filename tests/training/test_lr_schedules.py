"""Learning-rate schedules, by their factors."""

from __future__ import annotations

import pytest
import torch

from project.training.lr_schedules import WarmupHoldDecay, over_whole_run


def factors(scheduler, steps):
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)


def test_warm_up_hold_and_decay():
    assert factors(WarmupHoldDecay(optimizer(), steps=8, warmup=2, hold=0.5, floor=0.1), 9) == pytest.approx(
        [0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.1]
    )


def test_the_length_is_that_of_the_run_unless_given():
    asked = WarmupHoldDecay(optimizer(), warmup=1, hold=0.5)
    assert factors(over_whole_run(asked, 4), 4) == pytest.approx([1, 1, 1, 0.5])
    given = WarmupHoldDecay(optimizer(), steps=4, warmup=1, hold=0.5)
    assert factors(over_whole_run(given, 100), 4) == pytest.approx([1, 1, 1, 0.5])


def test_a_run_without_an_end_is_refused():
    with pytest.raises(ValueError, match=r"trainer\.max_steps"):
        over_whole_run(WarmupHoldDecay(optimizer()), -1)


def test_a_given_length_needs_no_end_of_the_run():
    given = WarmupHoldDecay(optimizer(), steps=4, warmup=1, hold=0.5)
    assert factors(over_whole_run(given, -1), 4) == pytest.approx([1, 1, 1, 0.5])


def test_a_resumed_run_may_be_longer():
    """Where the schedule stands is saved, its shape is not."""
    short = over_whole_run(WarmupHoldDecay(optimizer(), warmup=1, hold=0.5), 4)
    factors(short, 3)
    longer = over_whole_run(WarmupHoldDecay(optimizer(), warmup=1, hold=0.5), 8)
    longer.load_state_dict(short.state_dict())
    longer.optimizer.step()
    longer.step()
    assert longer.last_epoch == 4 and longer.get_last_lr() == pytest.approx([1.0])


def test_other_schedules_are_left_alone():
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer())
    assert over_whole_run(constant, -1) is constant
