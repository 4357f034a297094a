from __future__ import annotations

import pytest
import torch

from project.samplers.schedule import Schedule, shift_sigma, sigmas


def test_unshifted_times_are_evenly_spaced():
    assert torch.equal(sigmas(5, 1.0), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


def test_shift_three_by_hand():
    # 3 t / (1 + 2 t) at t = 1, 3/4, 1/2, 1/4, 0
    torch.testing.assert_close(sigmas(5, 3.0), torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0]))


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_inverse_shift_undoes_a_shift(shift):
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(shift_sigma(shift_sigma(times, shift), 1 / shift), times)


@pytest.mark.parametrize(("settings", "message"), [((1, 3.0), "num_steps to 2 or more"), ((10, 0.0), "shift")])
def test_impossible_schedules_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Schedule(*settings)
