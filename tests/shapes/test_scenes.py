from __future__ import annotations

import json

import numpy as np
import pytest

from project.shapes.scenes import (
    CELLS,
    KINDS,
    RELATIONS,
    SIZES,
    Layout,
    Object,
    Placed,
    Scene,
    related,
    sample_layout,
)
from project.shapes.split import SPLITS, sample_scene_of

RED = Object(colour="red", shape="circle")
BLUE = Object(colour="blue", shape="square")


def layout(*things: Object | None) -> Layout:
    cells = [
        None if t is None else Placed(thing=Object(colour=t.colour, shape=t.shape, size=t.size or "large"))
        for t in things
    ]
    return Layout(cells=(cells[0], cells[1], cells[2], cells[3]))


def test_a_single_scene_wants_its_object_alone_in_any_cell_and_size():
    scene = Scene(objects=(RED,))
    assert scene.satisfied_by(layout(None, None, RED, None))
    assert scene.satisfied_by(layout(Object(colour="red", shape="circle", size="small"), None, None, None))
    assert not scene.satisfied_by(layout(None, None, None, None))
    assert not scene.satisfied_by(layout(RED, RED, None, None))
    assert not scene.satisfied_by(layout(RED, BLUE, None, None))
    assert not scene.satisfied_by(layout(Object(colour="red", shape="square"), None, None, None))


@pytest.mark.parametrize("size", SIZES)
def test_a_named_size_is_demanded(size: str):
    scene = Scene(objects=(Object(colour="red", shape="circle", size="small"),))
    shown = layout(None, Object(colour="red", shape="circle", size=size), None, None)
    assert scene.satisfied_by(shown) == (size == "small")


@pytest.mark.parametrize("number", range(CELLS + 1))
def test_a_count_is_exact(number: int):
    shown = layout(*([RED] * number + [None] * (CELLS - number)))
    assert Scene(objects=(RED,), count=3).satisfied_by(shown) == (number == 3)


def test_relations_compare_columns_and_rows():
    assert {(a, b) for a in range(4) for b in range(4) if related(a, "left of", b)} == {(0, 1), (0, 3), (2, 1), (2, 3)}
    assert {(a, b) for a in range(4) for b in range(4) if related(a, "above", b)} == {(0, 2), (0, 3), (1, 2), (1, 3)}
    left = Scene(objects=(RED, BLUE), relation="left of")
    assert left.satisfied_by(layout(RED, BLUE, None, None))
    assert left.satisfied_by(layout(RED, None, None, BLUE))
    assert not left.satisfied_by(layout(BLUE, RED, None, None))
    assert not left.satisfied_by(layout(RED, None, BLUE, None))


@pytest.mark.parametrize("relation", RELATIONS)
def test_canonical_scenes_are_equal_exactly_if_the_same_layouts_satisfy_them(relation: str):
    scenes = [Scene(objects=pair, relation=r) for pair in ((RED, BLUE), (BLUE, RED)) for r in (None, *RELATIONS)]
    shown = [layout(*cells) for cells in _arrangements()]
    truths = {scene: tuple(map(scene.satisfied_by, shown)) for scene in scenes}
    for one in scenes:
        for other in scenes:
            assert (one.canonical() == other.canonical()) == (truths[one] == truths[other])


def _arrangements() -> list[list[Object | None]]:
    rows = []
    for first in range(4):
        for second in range(4):
            if first != second:
                rows.append([RED if cell == first else BLUE if cell == second else None for cell in range(4)])
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_sampled_layouts_satisfy_their_scene_and_survive_json(kind, split):
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = sample_scene_of(rng, kind, split)
        shown = sample_layout(rng, scene)
        assert scene.kind == kind
        assert scene.satisfied_by(shown)
        assert len(shown.things) == scene.total
        assert Scene.from_dict(scene.to_dict()) == scene


def test_impossible_scenes_are_refused():
    with pytest.raises(ValueError, match="differ in colour and in shape"):
        Scene(objects=(RED, Object(colour="red", shape="square")))
    with pytest.raises(ValueError, match="needs two objects"):
        Scene(objects=(RED,), relation="above")
    with pytest.raises(ValueError, match="copies"):
        Scene(objects=(RED,), count=5)
    with pytest.raises(ValueError, match="unknown colour 'pink'"):
        Object(colour="pink", shape="circle")
    with pytest.raises(ValueError, match="is no scene"):
        Scene.from_dict({"objects": 3})


@pytest.mark.parametrize("kind", KINDS)
def test_a_layout_survives_json(kind):
    rng = np.random.default_rng(0)
    for _ in range(20):
        layout = sample_layout(rng, sample_scene_of(rng, kind, "seen"))
        assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"cells": [None, None, None], "background": 0},
        {"cells": [None, None, None, None]},
        {"cells": [None, None, None, None], "background": 3},
        {"cells": [["red", "circle", "large"], None, None, None], "background": 0},
        {"cells": [["red", "moon", "large", 0, 0], None, None, None], "background": 0},
        {"cells": 4, "background": 0},
    ],
)
def test_what_is_no_layout_is_told(row):
    with pytest.raises(ValueError, match="is no layout"):
        Layout.from_dict(row)


def test_another_thing_stands_where_the_old_one_stood():
    old = Layout(cells=(Placed(thing=RED, dx=1, dy=-1), None, None, None), background=2)
    assert old.with_thing(0, BLUE).cells == (Placed(thing=BLUE, dx=1, dy=-1), None, None, None)
    assert old.with_thing(0, None).things == () and old.with_thing(0, None).background == 2
    assert old.with_thing(3, BLUE).cells == (old.cells[0], None, None, Placed(thing=BLUE))
