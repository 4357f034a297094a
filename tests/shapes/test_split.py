from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from project.shapes.grammar import COLOUR_DESCRIPTORS, SHAPE_DESCRIPTORS
from project.shapes.scenes import KINDS, Object, Scene
from project.shapes.split import (
    SPLITS,
    UNSEEN_COLOUR_DESCRIPTORS,
    UNSEEN_SHAPE_DESCRIPTORS,
    pair_split,
    pairs_of,
    sample_scene_of,
    scene_split,
    seen_words,
)


def test_the_table_is_parted_24_6_6_with_every_value_equally_often():
    assert [len(pairs_of(split)) for split in SPLITS] == [24, 6, 6]
    for split, times in zip(SPLITS, (4, 1, 1), strict=True):
        for values in zip(*pairs_of(split), strict=True):
            assert set(Counter(values).values()) == {times}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_scenes_keep_to_their_split(kind, split):
    rng = np.random.default_rng(0)
    for _ in range(100):
        scene = sample_scene_of(rng, kind, split)
        parts = {pair_split(thing.colour, thing.shape) for thing in scene.objects}
        assert scene_split(scene) == split
        assert split in parts and parts <= {"seen", split}


def test_practised_and_held_out_do_not_mix():
    practised, held_out = pairs_of("practised")[0], pairs_of("held_out")[1]
    objects = tuple(Object(colour=colour, shape=shape) for colour, shape in (practised, held_out))
    assert scene_split(Scene(objects=objects)) is None


def test_a_third_of_the_descriptors_is_unseen_and_every_value_keeps_one():
    assert {word for words in COLOUR_DESCRIPTORS.values() for word in words} >= UNSEEN_COLOUR_DESCRIPTORS
    assert {word for words in SHAPE_DESCRIPTORS.values() for word in words} >= UNSEEN_SHAPE_DESCRIPTORS
    for words in seen_words():
        assert sum(map(len, words.values())) == 8
        assert min(map(len, words.values())) == 1
