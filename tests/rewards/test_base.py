from __future__ import annotations

import math

import pytest
import torch

from project.core.metrics import Mean, Sum
from project.rewards.base import Reward, RewardOutput, combine, combined_in_groups, score
from project.trajectory import Prompt

NAN = math.nan
ONE, TWO = Mean(total=1.0, count=1.0), Mean(total=4.0, count=2.0)


def output(*values, **fields):
    return RewardOutput(reward_N=torch.tensor(values), **fields)


class Constant(Reward):
    def __init__(self, value, **settings):
        super().__init__(**settings)
        self.value = value

    def score(self, trajectories):
        return output(*[self.value] * len(trajectories))


def test_weighted_sums_by_hand():
    scores = combine([output(1.0, 2.0), output(10.0, 20.0), output(5.0, 6.0)], [1.0, 0.5, 2.0], [False, False, True])
    assert scores.reward_N.tolist() == [6.0, 12.0]
    assert scores.text_reward_N.tolist() == [10.0, 12.0]


def test_an_unscored_sample_stays_unscored():
    scores = combine([output(1.0, NAN, 3.0), output(NAN, 1.0, 1.0)], [1.0, 1.0], [False, True])
    assert scores.reward_N[[0, 2]].tolist() == [1.0, 3.0] and scores.reward_N[1].isnan()
    assert scores.text_reward_N[0].isnan() and scores.text_reward_N[1:].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("text_only", [False, True])
def test_weight_zero_is_logged_only(text_only):
    scores = combine([output(1.0), output(NAN, metrics={"watched": Sum(value=3.0)})], [1.0, 0.0], [False, text_only])
    assert scores.reward_N.tolist() == [1.0]
    assert scores.text_reward_N.tolist() == [0.0]
    assert scores.metrics == {"watched": Sum(value=3.0)}


def test_no_metric_is_lost_and_confidences_are_the_first():
    first, second = ((0.1, None),), ((0.7,),)
    scores = combine(
        [
            output(1.0, metrics={"a": ONE}),
            output(1.0, confidence_NQ=first, metrics={"a": TWO}),
            output(1.0, confidence_NQ=second),
        ],
        [1.0] * 3,
        [False] * 3,
    )
    assert scores.metrics == {"a": ONE, "a/1": TWO}
    assert scores.confidence_NQ == first
    assert combine([output(1.0)], [1.0], [False]).confidence_NQ == ()


def test_score_asks_every_reward():
    scores = score([None] * 4, [Constant(2.0), Constant(3.0, weight=0.5, text_only=True)])
    assert scores.reward_N.tolist() == [2.0] * 4
    assert scores.text_reward_N.tolist() == [1.5] * 4


def test_well_formed_is_what_every_reward_that_says_so_agrees_on():
    def formed(*values):
        return output(1.0, 1.0, 1.0, well_formed_N=torch.tensor(values))

    plain = output(1.0, 1.0, 1.0)
    assert combine([plain], [1.0], [False]).well_formed_N is None
    parts = [plain, formed(True, True, False), formed(True, False, False)]
    # also at weight 0
    scores = combine(parts, [1.0, 0.5, 0.0], [False, True, True])
    assert scores.well_formed_N.tolist() == [True, False, False]
    assert scores.well_formed_N.dtype == torch.bool


def test_bad_outputs_are_refused():
    with pytest.raises(ValueError, match="no reward"):
        combine([], [], [])
    with pytest.raises(ValueError, match="number of samples"):
        combine([output(1.0), output(1.0, 2.0)], [1.0, 1.0], [False, False])


# ----------------------------------------------------------------- normalised before they add up


def in_groups(*outputs, weights, floor=None, text_only=None, size=3):
    text_only = text_only or [False] * len(outputs)
    rewards = [Constant(0.0, weight=w, text_only=only) for w, only in zip(weights, text_only, strict=True)]
    return combined_in_groups(outputs, rewards, [Prompt(id="a", text="a")] * len(outputs[0].reward_N), size, floor)


def test_normalised_within_groups_by_hand():
    """Two groups of three. The last sample of the second is not scored: it counts in no mean and no deviation."""
    large = output(100.0, 300.0, 200.0, 0.0, 10.0, 5.0)
    small = output(0.2, 0.2, 0.5, 0.1, 0.3, NAN)
    scores = in_groups(large, small, weights=[1.0, 2.0], floor=0.0)
    a, b = math.sqrt(20000 / 3), math.sqrt(0.06 / 3)
    expected = [-100 / a - 0.2 / b, 100 / a - 0.2 / b, 0.4 / b, -1 - 2, 1 + 2, NAN]
    torch.testing.assert_close(scores.compared_N, torch.tensor(expected), equal_nan=True, atol=1e-4, rtol=1e-5)
    assert scores.text_compared_N[:5].tolist() == [0.0] * 5
    assert scores.to_compare == (scores.compared_N, scores.text_compared_N)
    plain = in_groups(large, small, weights=[1.0, 2.0])
    torch.testing.assert_close(scores.reward_N, plain.reward_N, equal_nan=True, rtol=0, atol=0)
    assert plain.compared_N is None and plain.to_compare == (plain.reward_N, plain.text_reward_N)


def test_scales_and_levels_do_not_decide():
    one, other = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    usual = in_groups(output(*one), output(*other), weights=[1.0, 0.5], floor=1e-9)
    scaled = in_groups(output(*(1000 * one + 7)), output(*other), weights=[1.0, 0.5], floor=1e-9)
    torch.testing.assert_close(scaled.compared_N, usual.compared_N, atol=1e-4, rtol=1e-4)


def test_a_text_only_reward_is_normalised_by_itself_and_a_logged_one_takes_no_sample_out():
    shared, text, logged = output(1.0, 2.0, 3.0), output(0.0, 0.0, 9.0), output(NAN, NAN, NAN)
    scores = in_groups(shared, text, logged, weights=[1.0, 1.0, 0.0], text_only=[False, True, False], floor=0.0)
    torch.testing.assert_close(scores.compared_N, torch.tensor([-1.0, 0.0, 1.0]) / math.sqrt(2 / 3))
    torch.testing.assert_close(scores.text_compared_N, torch.tensor([-3.0, -3.0, 6.0]) / math.sqrt(18))


def test_equal_rewards_of_a_group_say_nothing():
    scores = in_groups(output(0.7, 0.7, 0.7), output(1.0, 2.0, 3.0), weights=[1.0, 1.0], floor=1e-4)
    alone = in_groups(output(1.0, 2.0, 3.0), weights=[1.0], floor=1e-4)
    torch.testing.assert_close(scores.compared_N, alone.compared_N, atol=1e-6, rtol=0)
