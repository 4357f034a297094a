from __future__ import annotations

import numpy as np
import pytest

from project.shapes.grammar import (
    COLOUR_DESCRIPTORS,
    SHAPE_DESCRIPTORS,
    Disguise,
    describe,
    parse,
    read_reasoning,
    sample_disguises,
    think,
    vocabulary,
)
from project.shapes.scenes import KINDS, Object, Scene
from project.shapes.split import SPLITS, sample_scene_of

PAIR = Scene(objects=(Object(colour="red", shape="circle"), Object(colour="blue", shape="cross")), relation="left of")


def test_wordings_by_hand():
    three = Scene(objects=(Object(colour="green", shape="cross", size="small"),), count=3)
    assert describe(three) == "three small green crosses"
    assert describe(three, [Disguise(colour="grass", shape="plus")]) == "three small grass coloured plus shapes"
    assert describe(PAIR) == "a red circle left of a blue cross"
    assert describe(PAIR, [Disguise(shape="coin"), Disguise(colour="sky")]) == (
        "a red coin shape left of a sky coloured cross"
    )
    assert think(PAIR) == "<think> a red circle left of a blue cross </think>"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_text_and_scene_round_trip(kind, split):
    rng = np.random.default_rng(1)
    words = set(vocabulary())
    for _ in range(100):
        scene = sample_scene_of(rng, kind, split)
        disguises = sample_disguises(rng, scene, COLOUR_DESCRIPTORS, SHAPE_DESCRIPTORS)
        indirect = describe(scene, disguises)
        assert all(d.colour or d.shape for d in disguises)
        assert set(indirect.split()) | set(think(scene).split()) <= words
        assert parse(describe(scene)) == scene
        assert parse(indirect, indirect=True) == scene
        assert parse(indirect) is None  # Reasoning must not repeat the riddle.
        assert read_reasoning(think(scene)) == scene


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red circle",
        "a circle",
        "a red red circle",
        "a red circles",
        "two red circle",
        "a red circle and",
        "a red circle left a blue square",
        "a red circle and a red square",
        "two red circles and a blue square",
        "a red circle and a blue square and a green star",
        "a large small red circle",
        "a moon coloured circle",
    ],
)
def test_nonsense_is_no_scene(text: str):
    assert parse(text, indirect=True) is None


@pytest.mark.parametrize(
    "text", ["a red circle", "<think> a red circle", "<think> </think>", "<think> <think> a red circle </think>"]
)
def test_reasoning_needs_its_think_words(text: str):
    assert read_reasoning(text) is None


def test_a_disguise_must_fit_its_object():
    with pytest.raises(ValueError, match="'grass' is no descriptor of red"):
        describe(Scene(objects=(PAIR.objects[0],)), [Disguise(colour="grass")])


def test_the_vocabulary_is_small_sorted_and_distinct():
    words = vocabulary()
    assert list(words) == sorted(set(words))
    assert len(words) <= 130
    descriptors = [w for table in (COLOUR_DESCRIPTORS, SHAPE_DESCRIPTORS) for pair in table.values() for w in pair]
    assert len(set(descriptors)) == 24
