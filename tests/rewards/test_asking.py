from __future__ import annotations

import pytest

from project.core.errors import WrongReturn
from project.judges.base import Judge
from project.judges.noisy import NoisyJudge
from project.rewards.asking import ask, judge_metrics
from project.trajectory import Question


class Counting(Judge):
    """Answers with the number of the question that it was asked, over 100; remembers who asked."""

    def __init__(self):
        self.asked = []

    @property
    def name(self):
        return "counting"

    def preflight(self):
        pass

    def answer(self, images, questions, prompts):
        answers = []
        for image, row, prompt in zip(images, questions, prompts, strict=True):
            answers.append([])
            for question in row:
                self.asked.append((int(image[0, 0, 0]), prompt, question.text))
                answers[-1].append(len(self.asked) / 100)
        return answers


def test_equal_questions_about_equal_pictures_of_one_prompt_are_asked_once(trajectory):
    a, b = Question(text="a?", tag="Count"), Question(text="b?")
    judge = Counting()
    samples = [trajectory(picture=1), trajectory(picture=2), trajectory(picture=1), trajectory("a cat", picture=1)]
    questions = [[a, b], [a, a], [b, a, Question(text="a?", kind="quality")], [a]]
    answers = ask(judge, samples, questions)
    assert judge.asked == [
        (1, "a red circle", "a?"),
        (1, "a red circle", "b?"),
        (2, "a red circle", "a?"),
        (1, "a cat", "a?"),
    ]
    assert answers == [[0.01, 0.02], [0.03, 0.03], [0.02, 0.01, 0.01], [0.04]]


def test_nothing_to_ask(trajectory):
    assert ask(Counting(), [], []) == []
    assert ask(Counting(), [trajectory()], [[]]) == [[]]


def test_a_picture_of_another_shape_is_another_picture(trajectory):
    flat = trajectory(picture=1)
    object.__setattr__(flat.image, "pixels_HWC", flat.image.pixels_HWC.reshape(2, 12, 3))
    judge = Counting()
    ask(judge, [trajectory(picture=1), flat], [[Question(text="a?")]] * 2)
    assert len(judge.asked) == 2


def test_counters_get_one_prefix():
    assert judge_metrics({"judge/calls": 1.0, "seconds": 2.0}) == {"judge/calls": 1.0, "judge/seconds": 2.0}


HERE = r"judge 'counting' at .*test_asking\.py:\d+ "


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[1.5]], "gave a confidence outside"),
        ([[-0.1]], "gave a confidence outside"),
        ([[float("nan")]], "gave a confidence outside"),
        ([[]], "must answer every question"),
        ([[0.5], [0.5]], "must answer every question"),
        ([["yes"]], "gave no lists of numbers"),
        ([0.5], "gave no lists of numbers"),
        (None, "gave no lists of numbers"),
    ],
)
@pytest.mark.parametrize("around", [lambda judge: judge, NoisyJudge])
def test_what_is_no_confidence_is_refused_and_the_judges_own_file_named(trajectory, answers, message, around):
    judge = Counting()
    judge.answer = lambda images, questions, prompts: answers
    with pytest.raises(WrongReturn, match=HERE + message):
        ask(around(judge), [trajectory()], [[Question(text="a?")]])
