from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from project.data.interleaved import Example, Picture, Text
from project.shapes.asking import QUESTIONS, look_and_answer, look_at_own, sample_answered
from project.shapes.detector import detect
from project.shapes.grammar import describe, vocabulary
from project.shapes.own_pictures import OwnPicture, Pool
from project.shapes.questions import PLACES, Clean, Plain, Shows, parse_question
from project.shapes.renderer import render
from project.shapes.scenes import CELLS, Layout, Object, Scene, place, sample_layout, scene_of
from project.shapes.split import UNSEEN_COLOUR_DESCRIPTORS, UNSEEN_SHAPE_DESCRIPTORS, sample_scene_of, scene_split

CIRCLE = Object(colour="red", shape="circle", size="large")
SQUARE = Object(colour="blue", shape="square", size="small")


def layout(*things: Object | None) -> Layout:
    return place(np.random.default_rng(0), things)


def asked(example: Example) -> list[tuple[str, str]]:
    """Question and answer pairs."""
    texts = example.blocks[1:]
    assert all(isinstance(text, Text) for text in texts)
    assert [text.loss for text in texts] == [False, True] * (len(texts) // 2)
    return [(question.text, answer.text) for question, answer in zip(texts[::2], texts[1::2], strict=True)]


def pixels(example: Example) -> np.ndarray:
    picture = example.blocks[0]
    assert isinstance(picture, Picture) and picture.role == "seen_by_vit"
    return picture.pixels


@pytest.mark.parametrize("learner", ["policy", "judge"])
def test_answers_are_true_of_the_picture(learner):
    rng = np.random.default_rng(0)
    wrong = number = 0
    for _ in range(400):
        example = look_and_answer(rng, learner)
        reading = detect(pixels(example)[None])
        for question, answer in asked(example):
            number += 1
            if question.startswith("describe"):
                (seen,) = reading.layouts()
                thing = None if seen is None else dict(seen.things).get(PLACES.index(question[len("describe ") :]))
                shown = "nothing" if thing is None else describe(Scene(objects=(thing,)))
                wrong += shown != answer
            else:
                parsed = parse_question(question)
                assert parsed is not None, question
                wrong += (parsed.probability(reading)[0] > 0.5) != (answer == "yes")
    # The detector misreads a few degraded pictures, and some junk looks like an object.
    assert number > 1500 and wrong / number < 0.04


def test_yes_is_no_better_a_guess_than_no():
    rng = np.random.default_rng(1)
    counts = Counter(
        (type(parse_question(question)).__name__, answer)
        for _ in range(1500)
        for question, answer in asked(look_and_answer(rng))
        if answer in ("yes", "no")
    )
    for kind in {kind for kind, _ in counts}:
        share = counts[kind, "yes"] / (counts[kind, "yes"] + counts[kind, "no"])
        assert 0.36 < share < 0.66, (kind, share)


def test_a_policy_sees_nothing_that_pre_training_holds_back_and_a_judge_sees_all():
    words = {
        learner: {
            word
            for _ in range(1500)
            for pair in asked(look_and_answer(np.random.default_rng([2, _]), learner))
            for word in " ".join(pair).split()
        }
        for learner in ("policy", "judge")
    }
    unseen = UNSEEN_COLOUR_DESCRIPTORS | UNSEEN_SHAPE_DESCRIPTORS
    assert not words["policy"] & unseen
    assert unseen < words["judge"] <= set(vocabulary())
    compositions = {
        learner: {
            scene_split(parsed.scene)
            for n in range(600)
            for question, _ in asked(look_and_answer(np.random.default_rng([3, n]), learner))
            if isinstance(parsed := parse_question(question), Shows)
        }
        for learner in ("policy", "judge")
    }
    assert compositions["policy"] == {"seen"}
    assert {"seen", "practised", "held_out"} <= compositions["judge"]


def test_questions_of_a_picture_have_the_answers_of_its_layout():
    shown = layout(CIRCLE, None, None, SQUARE)
    answers = {one.text: one.answer for one in sample_answered(np.random.default_rng(0), shown, 3000)}
    assert answers["is the circle red ?"] == "yes" and answers["is the circle blue ?"] == "no"
    assert answers["is the square small ?"] == "yes" and answers["is there a square below right ?"] == "yes"
    assert answers["is the circle left of the square ?"] == "yes"
    assert answers["is the square above the circle ?"] == "no"
    assert answers["are there two shapes ?"] == "yes" and answers["are there three shapes ?"] == "no"
    assert answers["is there a star ?"] == "no"
    assert not {Clean().text, Plain().text} & set(answers)


def test_own_pictures_are_asked_about_as_they_were_read():
    scene = Scene(objects=(Object(colour="red", shape="circle"),))
    right = sample_layout(np.random.default_rng(0), scene)
    wrong = layout(None, Object(colour="blue", shape="circle", size="large"), None, None)
    pool = Pool([OwnPicture(scene=scene, pixels=render(shown), layout=shown) for shown in (right, wrong)])
    rng = np.random.default_rng(4)
    answers = {}
    for _ in range(300):
        example = look_at_own(rng, pool)
        blue = np.array_equal(pixels(example), render(wrong))
        answers |= {(blue, question): answer for question, answer in asked(example)}
    assert answers[False, "is there a red circle ?"] == "yes" and answers[True, "is there a red circle ?"] == "no"
    assert answers[True, "describe above right"] == "a large blue circle"


def test_numbers_of_questions():
    lengths = {len(asked(look_and_answer(np.random.default_rng([5, n])))) for n in range(200)}
    assert lengths == set(range(1, QUESTIONS + 1))


def test_scenes_of_layouts():
    for n in range(300):
        rng = np.random.default_rng(n)
        scene = sample_scene_of(rng, ("single", "size", "count", "pair")[n % 4], "seen")
        found = scene_of(sample_layout(rng, scene), sized=scene.kind == "size")
        assert found is not None and found.canonical() == scene.canonical()
    assert scene_of(layout(SQUARE, None, None, None)).objects[0].size == "small"
    assert scene_of(layout(*[None] * CELLS)) is None
    assert scene_of(layout(CIRCLE, SQUARE, SQUARE, None)) is None
