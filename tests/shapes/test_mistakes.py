from __future__ import annotations

import numpy as np
import pytest

from project.shapes.grammar import vocabulary
from project.shapes.mistakes import correct, make_mistake, reflect
from project.shapes.scenes import COLOURS, KINDS, SHAPES, Layout, Object, Placed, Scene, place, sample_layout
from project.shapes.split import pairs_of, sample_scene_of

RED = Object(colour="red", shape="circle", size="large")
RED_OPEN = Object(colour="red", shape="circle")
BLUE = Object(colour="blue", shape="square", size="large")
BLUE_CIRCLE = Object(colour="blue", shape="circle", size="large")
RED_STAR = Object(colour="red", shape="star", size="large")


def layout(*things: Object) -> Layout:
    cells = [Placed(thing=thing) for thing in things] + [None] * (4 - len(things))
    return Layout(cells=(cells[0], cells[1], cells[2], cells[3]))


@pytest.mark.parametrize(
    ("scene", "things", "fault"),
    [
        (Scene(objects=(RED,)), [RED], "nothing is wrong"),
        (Scene(objects=(RED,)), [], "the circle is missing"),
        (Scene(objects=(RED,)), [BLUE_CIRCLE], "the circle is blue not red"),
        (Scene(objects=(RED,)), [RED_STAR], "there is a star not a circle"),
        (Scene(objects=(RED,)), [RED, RED], "there are two not one"),
        (
            Scene(objects=(Object(colour="red", shape="circle", size="small"),)),
            [RED],
            "the circle is large not small",
        ),
        (Scene(objects=(RED,), count=3), [RED, RED], "there are two not three"),
        (Scene(objects=(RED,), count=3), [], "the circles are missing"),
        (Scene(objects=(RED,), count=2), [RED, BLUE], "there are squares not circles"),
        (Scene(objects=(RED, BLUE)), [RED], "the square is missing"),
        (Scene(objects=(RED, BLUE)), [BLUE, BLUE_CIRCLE], "the circle is blue not red"),
        (Scene(objects=(RED, BLUE)), [RED, BLUE, RED_STAR], "there are three not two"),
        (Scene(objects=(RED, BLUE), relation="left of"), [BLUE, RED], "the circle is not left of the square"),
    ],
)
def test_reflections_by_hand(scene: Scene, things: list[Object], fault: str):
    assert reflect(scene, layout(*things)) == f"<think> {fault} </think>"


@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_are_wrong_by_seen_pairs_only_and_are_said(kind):
    rng = np.random.default_rng(0)
    words = set(vocabulary())
    for _ in range(100):
        scene = sample_scene_of(rng, kind, "seen")
        right = sample_layout(rng, scene)
        wrong = make_mistake(rng, scene, right, pairs_of("seen"))
        assert not scene.satisfied_by(wrong)
        assert all((thing.colour, thing.shape) in pairs_of("seen") for _, thing in wrong.things)
        assert wrong.background == right.background
        assert set(reflect(scene, wrong).split()) <= words
        assert "nothing" not in reflect(scene, wrong)


def test_any_layout_can_be_reflected_on():
    rng = np.random.default_rng(1)
    things = [Object(colour=c, shape=k, size="small") for c in COLOURS for k in SHAPES]
    for index in range(500):
        scene = sample_scene_of(rng, KINDS[index % len(KINDS)], "seen")
        shown = place(rng, [things[int(rng.integers(36))] if rng.random() < 0.5 else None for _ in range(4)])
        assert ("nothing is wrong" in reflect(scene, shown)) == scene.satisfied_by(shown)


@pytest.mark.parametrize(
    ("scene", "things", "changed"),
    [
        (Scene(objects=(RED,)), [RED], {}),
        (Scene(objects=(RED,)), [], {0: RED}),
        (Scene(objects=(RED,)), [BLUE_CIRCLE], {0: RED}),
        (Scene(objects=(RED,)), [BLUE, RED], {0: None}),
        (Scene(objects=(RED,), count=3), [RED, BLUE], {1: RED, 2: RED}),
        (Scene(objects=(RED, BLUE)), [BLUE, RED_STAR], {1: RED}),
        (Scene(objects=(RED, BLUE), relation="left of"), [BLUE, RED], {0: RED, 1: BLUE}),
        (Scene(objects=(RED, BLUE), relation="above"), [RED, BLUE], {1: None, 2: BLUE}),
    ],
)
def test_a_correction_changes_as_little_as_it_can(scene, things, changed):
    shown = layout(*things)
    corrected = correct(scene, shown)
    assert scene.satisfied_by(corrected)
    contents = {cell: placed and placed.thing for cell, placed in enumerate(corrected.cells)}
    assert contents == {cell: placed and placed.thing for cell, placed in enumerate(shown.cells)} | changed


def test_corrections_are_right_and_keep_sizes_backgrounds_and_jitters():
    rng = np.random.default_rng(4)
    for n in range(400):
        scene = sample_scene_of(rng, KINDS[n % len(KINDS)], "seen")
        wrong = make_mistake(rng, scene, sample_layout(rng, scene), pairs_of("seen"))
        corrected = correct(scene, wrong)
        assert scene.satisfied_by(corrected) and corrected.background == wrong.background
        assert correct(scene, corrected) == corrected
    small = Object(colour="red", shape="circle", size="small")
    moved = correct(Scene(objects=(RED_OPEN, BLUE), relation="left of"), layout(BLUE, small))
    assert moved.cells[0] is not None and moved.cells[0].thing == small


@pytest.mark.parametrize(
    ("relation", "things", "fault"),
    [
        ("left of", [BLUE, RED], "the circle is right of not left of the square"),
        ("right of", [RED, None, BLUE], "the circle is above not right of the square"),
        ("above", [None, RED, BLUE], "nothing is wrong"),
        ("below", [None, RED, BLUE], "the circle is right of not below the square"),
    ],
)
def test_a_reflection_may_say_how_things_stand(relation, things, fault):
    cells = [thing and Placed(thing=thing) for thing in things] + [None] * (4 - len(things))
    shown = Layout(cells=(cells[0], cells[1], cells[2], cells[3]))
    assert reflect(Scene(objects=(RED, BLUE), relation=relation), shown, placed=True) == f"<think> {fault} </think>"
