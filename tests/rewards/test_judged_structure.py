from __future__ import annotations

import math

import pytest

from project.core.metrics import Sum, values
from project.judges.base import TextJudge
from project.rewards.base import combined_in_groups
from project.rewards.judged_structure import STEPS, JudgedStructure
from project.shapes.reflection_judge import CLARIFY, COMPARE, INSTRUCT, ReflectionJudge


class Scripted(TextJudge):
    """A text is its own answers: "1 0.5 -"."""

    def __init__(self):
        self.asked = []

    @property
    def name(self):
        return "scripted"

    def preflight(self):
        raise ValueError("switched off")

    def answer_texts(self, texts, questions, prompts):
        self.asked += zip(texts, prompts, strict=True)
        assert len(questions) == 3
        return [[None if word == "-" else float(word) for word in text.split()] for text in texts]

    def metrics(self):
        return {"calls": Sum(value=1.0)}


def test_the_mean_over_the_steps_of_the_last_text(trajectory):
    judge = Scripted()
    samples = [trajectory(texts=("0 0 0", "1 0.5 0.3")), trajectory(texts=("1 1 1",)), trajectory(texts=("1 1 1",))]
    output = JudgedStructure(judge).score(samples)
    assert judge.asked == [("1 0.5 0.3", "a red circle"), ("1 1 1", "a red circle")]
    assert output.reward_N.tolist() == pytest.approx([0.6, 1.0, 1.0])
    assert values(output.metrics) == pytest.approx(
        {
            "reward/structure/clarify": 1.0,
            "reward/structure/compare": 2.5 / 3,
            "reward/structure/instruct": 2.3 / 3,
            "judge/calls": 1.0,
        }
    )
    assert output.well_formed_N is None


def test_unanswered_steps_and_samples_without_text(trajectory):
    samples = [trajectory(texts=(text,)) for text in ("1 - 0", "0.4 0.8 0", "- - 1")] + [trajectory()]
    reward = JudgedStructure(Scripted(), mask_image=True)
    output = reward.score(samples)
    # the first takes the mean (.8 + 1) / 2 of those who count for its open step; the third has too few answers
    within_N = reward.within_groups(output, [t.prompt for t in samples], 4)
    assert within_N.tolist() == pytest.approx([1.9 / 3, 0.4, math.nan, 1.0], nan_ok=True)
    assert output.well_formed_N.tolist() == [False, False, True, True]
    none = JudgedStructure(Scripted()).score([trajectory()])
    assert none.reward_N.tolist() == [1.0]


def test_it_counts_for_the_text_alone_and_a_sample_with_few_answers_as_it_is_told(trajectory):
    samples = [trajectory(texts=(text,)) for text in ("1 - -", "0.4 0.8 0")]
    # a third of the steps is answered: too few by default; allowed, the open ones take the other sample's answers
    for minimum, expected in ((0.5, math.nan), (0.3, 1.8 / 3)):
        reward = JudgedStructure(Scripted(), minimum_answered=minimum, weight=0.5)
        scores = combined_in_groups([reward.score(samples)], [reward], [t.prompt for t in samples], 2)
        assert scores.text_reward_N.tolist() == pytest.approx([0.5 * expected, 0.2], nan_ok=True)
        assert scores.reward_N.tolist() == [0.0, 0.0]


def test_other_steps_and_the_embedded_world(trajectory):
    steps = {"clarify": CLARIFY, "compare": COMPARE, "instruct": INSTRUCT}
    reward = JudgedStructure(ReflectionJudge(), steps=steps, mask_image=True)
    texts = ("<think> the circle is blue not red </think>", "<think> the circle is red not blue </think>", "a b c")
    output = reward.score([trajectory(texts=(text,)) for text in texts])
    # the second says what is asked for and what is seen, but demands what the prompt does not
    assert output.reward_N.tolist() == pytest.approx([1.0, 2 / 3, 0.0])
    assert output.well_formed_N.tolist() == [True, False, False]
    assert reward.preflight() is None
    # questions of another world are unanswered
    assert JudgedStructure(ReflectionJudge()).score([trajectory(texts=texts[:1])]).reward_N.isnan().all()


def test_bad_settings_and_judges_out_of_line(trajectory):
    assert list(STEPS) == ["clarify", "compare", "instruct"]
    with pytest.raises(ValueError, match="switched off"):
        JudgedStructure(Scripted()).preflight()
    with pytest.raises(ValueError, match="steps is empty"):
        JudgedStructure(Scripted(), steps={})
    with pytest.raises(ValueError, match="from 0 to 1"):
        JudgedStructure(Scripted(), minimum_answered=2)
    with pytest.raises(ValueError, match="must answer every question"):
        JudgedStructure(Scripted()).score([trajectory(texts=("1 1",))])
    with pytest.raises(ValueError, match="outside"):
        JudgedStructure(Scripted()).score([trajectory(texts=("1 1 2",))])
