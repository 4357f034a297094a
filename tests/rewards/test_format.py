from __future__ import annotations

import math

import pytest

from project.core.metrics import values
from project.rewards.base import score
from project.rewards.format import ThinkTags, is_tagged
from project.rewards.function import FunctionReward
from project.training.advantages import advantages

GOOD = "<think> a red circle </think>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, True),
        (f"\n {GOOD}\n", True),
        ("<think>\na\nb</think>", True),
        ("", False),
        ("a red circle", False),
        ("<think> a red circle", False),
        ("a red circle </think>", False),
        (f"well: {GOOD}", False),
        (f"{GOOD} done", False),
        ("<think> a <think> b </think>", False),
        ("<think> a </think> b </think>", False),
        ("</think> a <think>", False),
        ("<think> </think>", False),
        ("<think></think>", False),
    ],
)
def test_tags_by_hand(text, expected):
    assert is_tagged(text, "<think>", "</think>") is expected


def test_overlapping_tags():
    assert not is_tagged("aba", "ab", "ba") and is_tagged("abxba", "ab", "ba")


def test_the_last_text_counts_for_the_text_alone(trajectory):
    samples = [
        trajectory(texts=(GOOD,)),
        trajectory(texts=(GOOD, "bad")),
        trajectory(texts=("bad", GOOD)),
        trajectory(),
    ]
    output = ThinkTags().score(samples)
    assert output.reward_N.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert values(output.metrics) == {"reward/think_tags": 0.75} and output.well_formed_N is None
    scores = score(samples, [ThinkTags(weight=0.1)])
    assert scores.text_reward_N.tolist() == pytest.approx([0.1, 0.0, 0.1, 0.1])
    assert scores.reward_N.tolist() == [0.0] * 4 and scores.well_formed_N is None


def test_shared_it_counts_for_text_and_picture(trajectory):
    kinds = ["x", "x", None, "x"]  # None: the picture has no reward
    texts = [GOOD, "bad", GOOD, GOOD]
    samples = [trajectory(picture=51, texts=(text,), kind=kind) for text, kind in zip(texts, kinds, strict=True)]
    bright = FunctionReward("tests.helpers.reward_functions.brightness")
    for text_only in (True, False):
        rewards = [bright, ThinkTags(weight=1.0, text_only=text_only)]
        scores = score(samples, rewards)
        # By hand: 51 / 255 each, and 1 for tags where they count; NaN stays NaN whatever the tags say.
        total = [1.2, 0.2, math.nan, 1.2]
        shared = [0.2, 0.2, math.nan, 0.2] if text_only else total
        assert scores.reward_N.tolist() == pytest.approx(shared, nan_ok=True)
        assert (scores.reward_N + scores.text_reward_N).tolist() == pytest.approx(total, nan_ok=True)
        made = advantages(scores.reward_N, scores.text_reward_N, 4, scale="none")
        assert made.valid_N.tolist() == [True, True, False, True]
        assert made.text_N.tolist() == pytest.approx([1 / 3, -2 / 3, 0.0, 1 / 3])
        assert made.image_N.tolist() == pytest.approx([0.0] * 4 if text_only else [1 / 3, -2 / 3, 0.0, 1 / 3])


def test_masking_marks_badly_formed_text(trajectory):
    samples = [trajectory(texts=(GOOD,)), trajectory(texts=("bad",))]
    assert score(samples, [ThinkTags(mask_image=True, weight=0.0)]).well_formed_N.tolist() == [True, False]


def test_other_tags_and_bad_ones(trajectory):
    assert ThinkTags(start="[", end="]").score([trajectory(texts=("[a]",))]).reward_N.tolist() == [1.0]
    for start, end in (("", "b"), ("a", " "), ("a", "a")):
        with pytest.raises(ValueError, match="two different tags"):
            ThinkTags(start=start, end=end)
