from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from project.shapes.grammar import parse
from project.shapes.probes import PROMPT_TAGS, TAGS, prompt_probes, shapes_probes
from project.shapes.questions import parse_question
from project.shapes.second_opinion import satisfies


@pytest.fixture(scope="module")
def probes():
    return shapes_probes(600, seed=0)


def test_they_are_even_over_tags_and_answers(probes):
    counted = Counter((probe.question.tag, probe.truth) for probe in probes)
    assert counted == {(tag, truth): 50 for tag in TAGS for truth in (True, False)}
    assert len({probe.id for probe in probes}) > 590
    assert all(probe.image.shape == (64, 64, 3) and probe.image.dtype == np.uint8 for probe in probes)
    assert all(parse_question(probe.question.text) is not None for probe in probes)


def test_the_answer_does_not_follow_from_the_prompt(probes):
    """Of the pictures with either true answer some are what the prompt asks for and some are not."""
    semantic = [probe for probe in probes if probe.question.kind == "semantic"]
    right = satisfies(np.stack([p.image for p in semantic]), [parse(p.prompt) for p in semantic])
    shares = {
        truth: np.mean([bool(r) for r, p in zip(right, semantic, strict=True) if p.truth == truth])
        for truth in (True, False)
    }
    assert 0.3 < shares[True] < 0.95, "a right picture, or a mistake elsewhere"
    assert shares[False] == 0.0, "a question that is denied is a mistake"


def test_the_same_seed_draws_the_same_probes(probes):
    assert [probe.id for probe in shapes_probes(24, seed=0)] == [probe.id for probe in probes[:24]]
    assert not {probe.id for probe in shapes_probes(24, seed=1)} & {probe.id for probe in probes}
    with pytest.raises(ValueError, match="at least 12"):
        shapes_probes(11)


def test_a_question_of_quality_that_is_affirmed_has_a_picture_without_fault(probes):
    affirmed = [probe for probe in probes if probe.question.kind == "quality" and probe.truth]
    assert satisfies(np.stack([p.image for p in affirmed]), [parse(p.prompt) for p in affirmed]).all()


def test_whole_prompts_are_asked_for_as_often_in_vain_as_not():
    asked = prompt_probes(400, seed=0)
    assert Counter((probe.question.tag, probe.truth) for probe in asked) == {
        (tag, truth): 100 for tag in PROMPT_TAGS for truth in (True, False)
    }
    scenes = [parse(probe.prompt, indirect=True) for probe in asked]
    assert {scene.kind for scene in scenes} == {"single", "size", "count", "pair", "relation"}
    shown = satisfies(np.stack([probe.image for probe in asked]), scenes)
    assert shown.tolist() == [probe.truth for probe in asked]
    with pytest.raises(ValueError, match="at least 4"):
        prompt_probes(3)
