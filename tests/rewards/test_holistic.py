from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from project.core.metrics import Sum, values
from project.judges.base import Judge
from project.rewards.holistic import HolisticReward
from project.shapes.grammar import parse
from project.shapes.judge import DetectorJudge
from project.shapes.renderer import render
from project.shapes.scenes import sample_layout


class Grey(Judge):
    """Confidence = grey value / 100; black pictures are too dark to answer."""

    def __init__(self):
        self.questions = []

    @property
    def name(self):
        return "grey"

    def preflight(self):
        raise ValueError("switched off")

    def answer(self, images, questions, prompts):
        self.questions += [question.text for row in questions for question in row]
        return [
            [image[0, 0, 0] / 100 if image.any() else None for _ in row]
            for image, row in zip(images, questions, strict=True)
        ]

    def metrics(self):
        return {"calls": Sum(value=2.0)}


def test_one_question_about_the_whole_prompt(trajectory):
    judge = Grey()
    samples = [trajectory("a {red} circle", picture=p) for p in (70, 30, 0, 70)]
    output = HolisticReward(judge, instruction='is it "{prompt}"?').score(samples)
    assert judge.questions == ['is it "a {red} circle"?'] * 3
    assert output.reward_N[[0, 1, 3]].tolist() == pytest.approx([0.7, 0.3, 0.7]) and output.reward_N[2].isnan()
    assert values(output.metrics) == pytest.approx(
        {"reward/holistic": 1.7 / 3, "judge/unanswered": 0.25, "judge/calls": 2.0}
    )
    assert output.confidence_NQ is None
    binary = HolisticReward(judge, binary=True).score(samples).reward_N.tolist()
    assert binary[:2] == [1.0, 0.0] and math.isnan(binary[2])


def test_bad_settings_and_a_judge_that_does_not_work():
    with pytest.raises(ValueError, match=r"write \{prompt\} where"):
        HolisticReward(Grey(), instruction="is it good?")
    with pytest.raises(ValueError, match="switched off"):
        HolisticReward(Grey()).preflight()


@pytest.mark.parametrize(
    ("prompt", "other"),
    [
        ("a red circle left of a blue square", "a red circle left of a green square"),
        ("three grass coloured tent shapes", "two green triangles"),
    ],
)
def test_the_embedded_world_answers_it(trajectory, prompt, other):
    """A right picture and a wrong one, for a direct and an indirect prompt."""
    rng = np.random.default_rng(0)
    samples = [trajectory(prompt), trajectory(prompt)]
    for sample, drawn in zip(samples, (prompt, other), strict=True):
        pixels = render(sample_layout(rng, parse(drawn, indirect=True)))
        object.__setattr__(sample.image, "pixels_HWC", torch.from_numpy(pixels.copy()))
    reward = HolisticReward(DetectorJudge(), instruction="is there {prompt} ?")
    right, wrong = reward.score(samples).reward_N.tolist()
    assert right > 0.8 and wrong < 0.1
