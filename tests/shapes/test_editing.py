from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from project.rewards.dvreward import geometric, group_rewards
from project.shapes.editing import (
    EDIT_KINDS,
    Edit,
    apply,
    changed,
    edit_of,
    instruct,
    kept,
    parse,
    questions,
    rendered_source,
    sample_edit,
)
from project.shapes.grammar import vocabulary
from project.shapes.judge import DetectorJudge
from project.shapes.questions import Coloured, Counts, Related, Sized, parse_question
from project.shapes.renderer import render
from project.shapes.scenes import COLOURS, RELATIONS, SHAPES, SIZES, Layout, Object, Placed
from project.shapes.split import SPLITS, pair_split
from project.trajectory import Prompt

RED = Object(colour="red", shape="circle", size="large")
BLUE = Object(colour="blue", shape="square", size="large")
GREEN = Object(colour="green", shape="circle", size="large")
SMALL = Object(colour="red", shape="circle", size="small")


def layout(*things: Object | None) -> Layout:
    cells = [thing and Placed(thing=thing, dx=1) for thing in [*things, *[None] * (4 - len(things))]]
    return Layout(cells=(cells[0], cells[1], cells[2], cells[3]), background=2)


EVERY = (
    [Coloured(shape=k, colour=c, many=m) for k in SHAPES for c in COLOURS for m in (False, True)]
    + [Sized(shape=k, size=z, many=m) for k in SHAPES for z in SIZES for m in (False, True)]
    + [Counts(number=n, shape=k) for n in (1, 2, 3, 4) for k in SHAPES]
    + [Related(first=a, relation=r, second=b) for a in SHAPES for b in SHAPES if a != b for r in RELATIONS]
)


@pytest.mark.parametrize(
    ("change", "instruction"),
    [
        (Coloured(shape="circle", colour="blue"), "the circle is blue"),
        (Coloured(shape="circle", colour="blue", many=True), "the circles are blue"),
        (Sized(shape="cross", size="small"), "the cross is small"),
        (Counts(number=1, shape="ring"), "there is one ring"),
        (Counts(number=3, shape="cross"), "there are three crosses"),
        (Related(first="star", relation="left of", second="square"), "the star is left of the square"),
        (Related(first="star", relation="above", second="square"), "the star is above the square"),
    ],
)
def test_instructions_by_hand(change, instruction):
    assert instruct(change) == instruction


def test_every_instruction_is_understood_and_in_known_words():
    words = set(vocabulary())
    for change in EVERY:
        assert parse(instruct(change)) == change
        assert set(instruct(change).split()) <= words


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the",
        "there",
        "the circle",
        "a blue circle",
        "is the circle blue ?",
        "the circle are blue",
        "the circle is blue not red",
        "the circle is not blue",
        "there are three shapes",
        "there is a circle",
        "there is a circle above left",
        "the circle is left",
        "the moon is blue",
    ],
)
def test_other_texts_are_no_instruction(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    ("instruction", "before", "after"),
    [
        ("the circle is green", (RED, None, BLUE), [(GREEN, None, BLUE)]),
        ("the circles are green", (RED, None, RED), [(GREEN, None, GREEN)]),
        ("the circle is small", (RED, None, BLUE), [(SMALL, None, BLUE)]),
        ("there are two circles", (RED,), [(RED, RED), (RED, None, RED), (RED, None, None, RED)]),
        ("there is one circle", (RED, RED, RED), [(RED,), (None, RED), (None, None, RED)]),
        ("there are two circles", (RED, None, BLUE), [(RED, RED, BLUE), (RED, None, BLUE, RED)]),
        (
            "the circle is above the square",
            (BLUE, RED),
            [(RED, None, BLUE), (RED, None, None, BLUE), (None, RED, BLUE), (None, RED, None, BLUE)],
        ),
    ],
)
def test_edits_by_hand(instruction, before, after):
    change = parse(instruction)
    results = apply(change, layout(*before))
    assert {result.things for result in results} == {layout(*things).things for things in after}
    assert len(results) == len(after) and {result.background for result in results} == {2}


def test_what_stays_keeps_its_jitter():
    (result,) = apply(parse("the circle is green"), layout(RED, BLUE))
    assert all(placed.dx == 1 for placed in result.cells if placed)


@pytest.mark.parametrize(
    ("instruction", "source"),
    [
        ("the star is green", (RED,)),
        ("there are two stars", (RED,)),
        ("there are four circles", (RED, BLUE)),
        ("the circle is above the star", (RED, BLUE)),
        ("the circle is above the square", (RED, RED, BLUE)),
    ],
)
def test_what_cannot_be_done_is_refused(instruction, source):
    with pytest.raises(ValueError, match="cannot be done"):
        apply(parse(instruction), layout(*source))


@pytest.mark.parametrize(
    ("instruction", "before", "after", "is_changed", "is_kept"),
    [
        ("the circle is green", (RED, BLUE), (RED, BLUE), False, True),  # a copy
        ("the circle is green", (RED, BLUE), (None, GREEN, BLUE), True, False),  # places
        ("the circle is green", (RED, BLUE), (GREEN,), True, False),  # something is gone
        ("the circle is green", (RED,), (GREEN, BLUE), True, False),  # something is new
        ("the circle is green", (RED,), (Object(colour="green", shape="circle", size="small"),), True, False),
        ("the circle is small", (RED,), (Object(colour="green", shape="circle", size="small"),), True, False),
        ("there are two circles", (RED,), (None, RED, RED), True, False),  # the first one moved
        ("there are two circles", (RED,), (GREEN, GREEN), True, False),
        ("there are two circles", (RED,), (RED, RED, RED), False, True),  # one too many
        ("there are two circles", (RED,), (), False, False),
        ("the circle is above the square", (BLUE, RED), (RED, None, BLUE), True, True),
        ("the circle is above the square", (BLUE, RED), (GREEN, None, BLUE), True, False),
        ("the circle is above the square", (BLUE, RED), (RED, BLUE), False, True),
    ],
)
def test_changed_and_kept_by_hand(instruction, before, after, is_changed, is_kept):
    change, source, shown = parse(instruction), layout(*before), layout(*after)
    assert (changed(change, shown), kept(change, source, shown)) == (is_changed, is_kept)


@pytest.mark.parametrize("kind", EDIT_KINDS)
def test_changed_and_kept_are_the_edits_that_can_be_applied(kind):
    """Over all pictures of the objects that matter: two ways to say what an edit is."""
    rng = np.random.default_rng(0)
    for _ in range(6):
        edit = sample_edit(rng, kind, "seen")
        wanted = {result.things for result in apply(edit.change, edit.source)}
        things = {thing for cells in (*wanted, edit.source.things) for _, thing in cells}
        found = set()
        for cells in product([None, *sorted(things), RED], repeat=4):
            shown = layout(*cells)
            if changed(edit.change, shown) and kept(edit.change, edit.source, shown):
                found.add(shown.things)
        assert found == wanted


@pytest.mark.parametrize("kind", EDIT_KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_samples_are_edits_of_their_split_in_pictures_of_the_world(kind, split):
    rng = np.random.default_rng(1)
    for _ in range(60):
        edit = sample_edit(rng, kind, split)
        assert edit.kind == kind and parse(edit.instruction) == edit.change
        assert not changed(edit.change, edit.source) and kept(edit.change, edit.source, edit.source)
        results = apply(edit.change, edit.source)
        for result in results:
            assert changed(edit.change, result) and kept(edit.change, edit.source, result)
        after = {pair_split(thing.colour, thing.shape) for _, thing in results[0].things}
        before = {pair_split(thing.colour, thing.shape) for _, thing in edit.source.things}
        assert split in after and after <= {"seen", split} and before <= {"seen", split}
        if kind == "colour":
            recoloured = [thing for _, thing in edit.source.things if thing.shape == edit.change.shape]
            assert {pair_split(thing.colour, thing.shape) for thing in recoloured} == {"seen"}
        for shown in (edit.source, *results):
            assert len(shown.things) == 1 or all(thing.size == "large" for _, thing in shown.things)


def answers(edit: Edit, shown: Layout) -> list[float]:
    return [float(parse_question(question.text).holds(shown)) for question in questions(edit)]


@pytest.mark.parametrize("kind", EDIT_KINDS)
def test_questions_are_all_yes_for_every_right_edit_alone(kind):
    rng = np.random.default_rng(2)
    for _ in range(40):
        edit = sample_edit(rng, kind, "seen")
        asked = questions(edit)
        assert [question.kind for question in asked] == ["semantic"] + ["quality"] * (len(asked) - 1)
        assert len({question.text for question in asked}) == len(asked)
        for result in apply(edit.change, edit.source):
            assert set(answers(edit, result)) == {1.0}
        copy = dict(zip([question.text for question in asked], answers(edit, edit.source), strict=True))
        # Besides the change, a copy of the source can only be wrong in what the change entails: the number in all.
        denied = {text for text, value in copy.items() if not value}
        assert edit.change.text in denied and all("shape" in text for text in denied - {edit.change.text})


def test_questions_by_hand():
    edit = Edit(source=layout(RED, None, BLUE), change=parse("the circle is green"))
    assert [(question.text, question.tag) for question in questions(edit)] == [
        ("is the circle green ?", "Attribute"),
        ("is there a circle above left ?", "Preservation"),
        ("is the circle large ?", "Preservation"),
        ("is there a square below left ?", "Preservation"),
        ("is the square blue ?", "Preservation"),
        ("is the square large ?", "Preservation"),
        ("are there two shapes ?", "Preservation"),
        ("are the shapes clean ?", "Geometry"),
        ("is the background plain ?", "Coherence"),
    ]


def test_the_reward_prefers_the_edit_to_a_copy_and_to_another_picture():
    """With the judge of the world, on pictures: what RL is told."""
    edit = Edit(source=layout(RED, None, BLUE), change=parse("the circle is green"))
    (right,) = apply(edit.change, edit.source)
    redrawn = layout(None, GREEN)
    pictures = [render(shown) for shown in (right, edit.source, redrawn)]
    asked = questions(edit)
    answered = DetectorJudge().answer(pictures, [asked] * 3, [edit.instruction] * 3)
    reward = group_rewards(answered, asked, aggregate=geometric).tolist()
    assert reward[0] > 0.95 and reward[1] < 0.2 and 0.3 < reward[2] < 0.8


def test_a_prompt_is_rendered():
    source = layout(RED, BLUE)
    prompt = Prompt(id="a", text="the circle is green", columns={"layout": source.to_dict()})
    assert edit_of(prompt) == Edit(source=source, change=Coloured(shape="circle", colour="green"))
    assert np.array_equal(rendered_source(prompt), render(source))


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("the circle is green", {}, "edit.jsonl:7: prompt 'a' .* has no layout"),
        ("a green circle", {"layout": layout(RED).to_dict()}, "is no instruction"),
        ("the circle is green", {"layout": {"cells": []}}, "edit.jsonl:7: prompt 'a': .* is no layout"),
    ],
)
def test_a_prompt_without_a_picture_is_told_by_its_place(text, columns, message):
    with pytest.raises(ValueError, match=message):
        rendered_source(Prompt(id="a", text=text, columns=columns, place="edit.jsonl:7"))
