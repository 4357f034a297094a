"""False-positive rectification, by hand-computed numbers."""

from __future__ import annotations

import math

import pytest
import torch

from project.tasks.rectification import rectify

NAN = math.nan


def rectified(reward, before, size=4, **settings):
    return rectify(torch.tensor(reward), torch.tensor(before), size, **settings)


def told(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def test_what_does_not_beat_its_first_picture_gets_that_pictures_reward():
    """The published form: r_init 0.5, r [.4 .5 .7 .9] -> [.5 .5 .7 .9]."""
    result = rectified([0.4, 0.5, 0.7, 0.9], [0.5] * 4)
    torch.testing.assert_close(result.reward_N, torch.tensor([0.5, 0.5, 0.7, 0.9]))
    assert result.false_positive_N.tolist() == [True, True, False, False]
    assert told(result)["false_positives"] == 0.5 and told(result)["skipped"] == 0
    assert told(result)["raw_reward"] == pytest.approx(0.625), "what it was before rectification is told too"
    assert told(result)["gain"] == pytest.approx((-0.1 + 0 + 0.2 + 0.4) / 4)


def test_the_floor_may_be_the_groups_worst_refined_reward():
    result = rectified([0.4, 0.5, 0.7, 0.9], [0.5] * 4, floor="refined")
    torch.testing.assert_close(result.reward_N, torch.tensor([0.4, 0.4, 0.7, 0.9]))


def test_later_rounds_compare_with_their_own_picture_and_share_the_groups_floor():
    result = rectified([0.6, 0.6, 0.7, 0.3], [0.7, 0.2, 0.5, 0.4])
    torch.testing.assert_close(result.reward_N, torch.tensor([0.2, 0.6, 0.7, 0.2]))


def test_groups_do_not_touch_each_other():
    result = rectified([0.4, 0.9, 0.1, 0.3], [0.5, 0.5, 0.2, 0.2], size=2)
    torch.testing.assert_close(result.reward_N, torch.tensor([0.5, 0.9, 0.2, 0.3]))


def test_what_is_not_judged_drops_out_and_moves_nobody():
    result = rectified([0.4, NAN, 0.7, 0.9], [0.5, 0.1, NAN, 0.5])
    assert result.reward_N.isnan().tolist() == [False, True, True, False]
    assert result.reward_N[0].item() == pytest.approx(0.5), "the unjudged sample's 0.1 is no floor"
    assert told(result)["unjudged"] == 2


@pytest.mark.parametrize("floor", ["before", "refined"])
def test_where_nothing_improved_there_is_nothing_to_learn(floor):
    result = rectified([0.4, 0.5, 0.1, 0.2], [0.5, 0.5, 0.2, 0.2], size=2, floor=floor)
    assert result.reward_N.isnan().all() and told(result)["skipped"] == 1


def test_an_improvement_in_another_group_keeps_the_terms():
    result = rectified([0.4, 0.3, 0.8, 0.4], [0.5] * 4, size=2)
    torch.testing.assert_close(result.reward_N, torch.tensor([0.5, 0.5, 0.8, 0.5]))
    assert told(result)["skipped"] == 0 and told(result)["false_positives"] == 3 / 4


def test_without_rectification_rewards_stay():
    result = rectified([0.4, 0.3], [0.5, NAN], size=2, floor=None)
    assert result.reward_N[0].item() == pytest.approx(0.4) and result.reward_N[1].isnan()
    assert told(result)["skipped"] == 0


def test_it_is_told_how_much_of_the_encouragement_goes_to_false_positives():
    """Rewards [.4 .3 .5 .8], first .5: above the mean .5 only .8; [.4 .1 .1 .2], first .5: .2 and nothing improved.

    Unrectified .2 of .2 + .3 is encouraged for nothing; rectified, no false positive is above its group's mean.
    """
    reward, before = [0.4, 0.3, 0.5, 0.8, 0.4, 0.1, 0.1, 0.2], [0.5] * 8
    assert told(rectified(reward, before, floor=None))["misled"] == pytest.approx(0.2 / 0.5)
    assert told(rectified(reward, before))["misled"] == 0
    nothing = rectified([0.4, NAN, 0.4, 0.4], [0.5] * 4, floor=None)
    assert told(nothing)["misled"] == 0, "a group of equals encourages nobody"


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="whole groups"):
        rectified([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], size=2)
    with pytest.raises(ValueError, match="choose before, refined or null"):
        rectified([0.1, 0.2], [0.1, 0.2], size=2, floor="lowest")


def test_improvements_are_floored_at_none():
    """Every sample refines a picture of its own: -.05 -.10 +.05 +.05, and no false positive looks good."""
    result = rectified([0.85, 0.10, 0.30, 0.95], [0.90, 0.20, 0.25, 0.90], relative=True)
    torch.testing.assert_close(result.reward_N, torch.tensor([0.0, 0.0, 0.05, 0.05]))
    assert told(result)["misled"] == 0
    assert told(result)["raw_reward"] == pytest.approx(0.55)
    assert told(result)["gain"] == pytest.approx(-0.0125, abs=1e-6)
    lowest = rectified([0.85, 0.10, 0.30, 0.95], [0.90, 0.20, 0.25, 0.90], relative=True, floor="refined")
    torch.testing.assert_close(lowest.reward_N, torch.tensor([-0.1, -0.1, 0.05, 0.05]))
    kept = rectified([0.85, 0.10, NAN, 0.95], [0.90, 0.20, 0.25, 0.90], relative=True, floor=None)
    torch.testing.assert_close(kept.reward_N, torch.tensor([-0.05, -0.10, NAN, 0.05]), equal_nan=True)
