from __future__ import annotations

import numpy as np
import pytest

from project.shapes.decomposer import scene_questions
from project.shapes.judge import DetectorJudge
from project.shapes.mistakes import make_mistake
from project.shapes.questions import parse_question
from project.shapes.renderer import render
from project.shapes.scenes import KINDS, sample_layout
from project.shapes.split import SPLITS, pairs_of, sample_scene_of
from project.trajectory import Question


def test_right_pictures_are_confirmed_and_wrong_ones_are_denied_where_they_are_wrong():
    rng = np.random.default_rng(0)
    images, questions, truths = [], [], []
    for index in range(300):
        scene = sample_scene_of(rng, KINDS[index % 5], SPLITS[index % 3])
        layout = sample_layout(rng, scene)
        if index % 2:
            layout = make_mistake(rng, scene, layout, pairs_of("seen") + pairs_of("practised"))
        images.append(render(layout))
        questions.append(scene_questions(scene))
        truths.append([parse_question(asked.text).holds(layout) for asked in questions[-1]])
    answers = DetectorJudge().answer(images, questions, [""] * 300)
    for answer, truth in zip(answers, truths, strict=True):
        assert [confidence > 0.5 for confidence in answer] == truth
        assert all(0 <= confidence <= 1 for confidence in answer)
    assert sum(not all(truth) for truth in truths) == 150  # Every mistake costs at least one question.


def test_an_unknown_question_is_unanswered():
    image = np.full((64, 64, 3), 250, dtype=np.uint8)
    asked = [Question(text="is it beautiful ?"), Question(text="is there a circle ?")]
    (answer,) = DetectorJudge().answer([image], [asked], ["a red circle"])
    assert answer[0] is None
    assert answer[1] < 0.05


def test_no_images_no_answers():
    judge = DetectorJudge()
    judge.preflight()
    assert judge.answer([], [], []) == []
    assert judge.name == "shapes-detector"


def test_bad_input_is_refused():
    image = np.full((64, 64, 3), 250, dtype=np.uint8)
    with pytest.raises(ValueError, match="one prompt per image"):
        DetectorJudge().answer([image], [], [""])
    with pytest.raises(ValueError, match="several sizes"):
        DetectorJudge().answer([image, image[:32]], [[], []], ["", ""])
    with pytest.raises(ValueError, match="reads uint8"):
        DetectorJudge().answer([image[:32, :32]], [[]], [""])
