from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from project.data.interleaved import Example, Picture, Text
from project.shapes.detector import detect
from project.shapes.editing import EDIT_KINDS, changed, kept, kind_of
from project.shapes.editing import parse as parse_edit
from project.shapes.examples import DEFAULT_RATES, drop_words, sample_example
from project.shapes.grammar import parse, read_reasoning, vocabulary
from project.shapes.questions import Clean, Plain, parse_question
from project.shapes.split import UNSEEN_COLOUR_DESCRIPTORS, UNSEEN_SHAPE_DESCRIPTORS, scene_split


def sampled(task: str, number: int = 150) -> list[Example]:
    rng = np.random.default_rng(0)
    return [sample_example(rng, {task: 1.0}) for _ in range(number)]


def shape_of(example: Example) -> list[str]:
    return [("learned" if b.loss else "text") if isinstance(b, Text) else b.role for b in example.blocks]


@pytest.mark.parametrize(
    ("task", "blocks"),
    [
        ("draw", ["text", "drawn"]),
        ("think_and_draw", ["text", "text", "learned", "drawn"]),
        ("caption", ["seen_by_vit", "text", "learned"]),
        ("question", ["seen_by_vit", "text", "learned"]),
        ("reflect", ["text", "clean", "seen_by_vit", "text", "learned", "drawn"]),
        ("edit", ["text", "clean", "seen_by_vit", "text", "learned", "drawn"]),
    ],
)
def test_blocks_stand_in_context_order(task: str, blocks: list[str]):
    for example in sampled(task):
        assert example.task == task
        assert shape_of(example) == blocks


def test_only_seen_words_and_compositions_occur():
    rng = np.random.default_rng(1)
    allowed = set(vocabulary()) - UNSEEN_COLOUR_DESCRIPTORS - UNSEEN_SHAPE_DESCRIPTORS
    rates = DEFAULT_RATES | {"reflect": 0.2, "questions": 0.2, "edit": 0.2}
    used = set()
    for _ in range(3000):
        used.update(w for b in sample_example(rng, rates).blocks if isinstance(b, Text) for w in b.text.split())
    assert used == allowed


def test_reasoning_is_true_of_the_picture_though_words_were_dropped():
    scenes, pictures, dropped = [], [], 0
    for example in sampled("think_and_draw"):
        _, prompt, reasoning, picture = example.blocks
        assert isinstance(reasoning, Text) and isinstance(prompt, Text) and isinstance(picture, Picture)
        scene = read_reasoning(reasoning.text)
        assert scene is not None and scene_split(scene) == "seen"
        dropped += parse(prompt.text, indirect=True) != scene
        scenes.append(scene)
        pictures.append(picture.pixels)
    assert detect(np.stack(pictures)).accuracy(scenes) == 1.0
    assert 0.2 < dropped / len(scenes) < 0.8


def test_captions_are_true():
    scenes, pictures = [], []
    for example in sampled("caption"):
        picture, _, text = example.blocks
        assert isinstance(text, Text) and isinstance(picture, Picture)
        scenes.append(parse(text.text))
        pictures.append(picture.pixels)
    assert detect(np.stack(pictures)).accuracy(scenes) == 1.0


def test_answers_are_true_and_balanced():
    answers = Counter()
    for example in sampled("question", 600):
        picture, question, answer = example.blocks
        assert isinstance(picture, Picture) and isinstance(question, Text) and isinstance(answer, Text)
        parsed = parse_question(question.text)
        answers[answer.text] += 1
        yes = parsed.probability(detect(picture.pixels[None]))[0]
        if not isinstance(parsed, Clean | Plain):  # Few cells of junk happen to look like an object.
            assert (yes > 0.5) == (answer.text == "yes"), question.text
    assert 0.42 < answers["yes"] / 600 < 0.58
    assert set(answers) == {"yes", "no"}


def test_refinements_end_in_a_right_picture():
    scenes, shown, corrected, faultless = [], [], [], []
    for example in sampled("reflect"):
        _, clean, _, prompt, reflection, picture = example.blocks
        scenes.append(parse(prompt.text.removeprefix("reflect ")))
        shown.append(clean.pixels)
        corrected.append(picture.pixels)
        faultless.append("nothing is wrong" in reflection.text)
    assert detect(np.stack(corrected)).accuracy(scenes) == 1.0
    assert detect(np.stack(shown)).satisfies(scenes).tolist() == faultless
    assert 0.1 < np.mean(faultless) < 0.4


def test_edits_end_in_the_picture_that_was_asked_for():
    scenes, edited = [], []
    for example in sampled("edit", 300):
        _, source, seen, instruction, reasoning, picture = example.blocks
        assert np.array_equal(source.pixels, seen.pixels)
        before, after = detect(np.stack([source.pixels, picture.pixels])).layouts()
        change = parse_edit(instruction.text)
        assert change is not None and changed(change, after) and kept(change, before, after)
        assert not changed(change, before)
        scenes.append(read_reasoning(reasoning.text))
        edited.append(picture.pixels)
    assert {kind_of(parse_edit(e.blocks[3].text)) for e in sampled("edit")} == set(EDIT_KINDS)
    assert {scene_split(scene) for scene in scenes} == {"seen"}
    assert detect(np.stack(edited)).accuracy(scenes) == 1.0


def test_words_are_dropped_at_their_rate_but_never_all():
    rng = np.random.default_rng(2)
    kept = [len(drop_words(rng, "a b c d e f g h i j", 0.12).split()) for _ in range(2000)]
    assert np.mean(kept) == pytest.approx(8.8, abs=0.1)
    assert drop_words(rng, "a b", 1.0) == "a b"


def test_rates_must_be_usable():
    with pytest.raises(ValueError, match="must be positive"):
        sample_example(np.random.default_rng(0), {"draw": 0.0})


def test_the_stream_is_fast():
    rng = np.random.default_rng(3)
    for _ in range(300):
        sample_example(rng)
    start = time.process_time()
    for _ in range(1000):
        sample_example(rng)
    assert 1000 / (time.process_time() - start) > 2000
