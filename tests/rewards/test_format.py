from __future__ import annotations

import pytest

from project.core.metrics import values
from project.rewards.base import score
from project.rewards.format import ThinkTags, is_tagged

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


def test_masking_marks_badly_formed_text(trajectory):
    samples = [trajectory(texts=(GOOD,)), trajectory(texts=("bad",))]
    assert score(samples, [ThinkTags(mask_image=True, weight=0.0)]).well_formed_N.tolist() == [True, False]


def test_other_tags_and_bad_ones(trajectory):
    assert ThinkTags(start="[", end="]").score([trajectory(texts=("[a]",))]).reward_N.tolist() == [1.0]
    for start, end in (("", "b"), ("a", " "), ("a", "a")):
        with pytest.raises(ValueError, match="two different tags"):
            ThinkTags(start=start, end=end)
