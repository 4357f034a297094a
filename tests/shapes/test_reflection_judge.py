from __future__ import annotations

import numpy as np
import pytest

from project.shapes.grammar import describe
from project.shapes.mistakes import make_mistake, reflect
from project.shapes.reflection_judge import CLARIFY, COMPARE, INSTRUCT, ReflectionJudge
from project.shapes.scenes import KINDS, sample_layout
from project.shapes.split import SPLITS, pairs_of, sample_scene_of

QUESTIONS = [CLARIFY, COMPARE, INSTRUCT]


def test_every_true_reflection_has_all_three_steps():
    rng = np.random.default_rng(0)
    texts, prompts = [], []
    for index in range(400):
        scene = sample_scene_of(rng, KINDS[index % 5], SPLITS[index % 3])
        layout = sample_layout(rng, scene)
        if index % 4:
            layout = make_mistake(rng, scene, layout, pairs_of("seen") + pairs_of("practised"))
        texts.append(reflect(scene, layout))
        prompts.append(describe(scene))
    assert len(set(texts)) > 100
    answers = ReflectionJudge().answer_texts(texts, QUESTIONS, prompts)
    assert [text for text, row in zip(texts, answers, strict=True) if row != [1.0] * 3] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the circle is blue not red", [1, 1, 1]),
        ("the circle is missing", [1, 1, 1]),
        ("there is a star not a circle", [1, 1, 1]),
        ("there are three not two", [1, 1, 1]),
        ("the circle is not left of the square", [1, 1, 1]),
        ("the circle is small not large", [1, 1, 0]),  # no size was asked for
        ("the circle is red not red", [1, 0, 1]),
        ("the circle is red not green", [1, 1, 0]),
        ("there are two not three", [1, 1, 0]),
        ("the circle is not above the square", [1, 1, 0]),
        ("the star is missing", [0, 1, 0]),
        ("the star is not left of the square", [0, 1, 0]),
        ("it is all wrong", [0, 0, 0]),
        ("", [0, 0, 0]),
    ],
)
def test_steps_by_hand(text, expected):
    prompt = "a blood coloured circle left of a blue square"
    (row,) = ReflectionJudge().answer_texts([f"<think> {text} </think>"], QUESTIONS, [prompt])
    assert row == expected


def test_what_it_does_not_know_is_unanswered():
    judge = ReflectionJudge()
    assert judge.answer_texts(["nothing is wrong"], ["is it poetry ?", CLARIFY], ["a red circle"]) == [[None, 1.0]]
    assert judge.answer_texts(["nothing is wrong"], QUESTIONS, ["a photo of a cat"]) == [[None] * 3]
    assert judge.answer_texts([], QUESTIONS, []) == []
    with pytest.raises(ValueError, match="one prompt per text"):
        judge.answer_texts(["a"], QUESTIONS, [])
    judge.preflight()
