from __future__ import annotations

import math

import pytest
import torch

from project.core.metrics import Mean, Sum
from project.rewards.base import Reward, RewardOutput, combine, score

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
