from __future__ import annotations

import numpy as np
import pytest

from project.shapes.grammar import vocabulary
from project.shapes.questions import Coloured, Counts, Exists, Related, Sized, Stands, parse_question
from project.shapes.reading import COLOUR_NAMES, Reading
from project.shapes.scenes import COLOURS, RELATIONS, SHAPES, SIZES, Layout, Object, place

BLUE = Object(colour="blue", shape="star", size="small")
EVERY = (
    [Exists(shape=k) for k in SHAPES]
    + [Coloured(shape=k, colour=c, many=m) for k in SHAPES for c in COLOURS for m in (False, True)]
    + [Sized(shape=k, size=z, many=m) for k in SHAPES for z in SIZES for m in (False, True)]
    + [Counts(number=n, shape=k) for n in (1, 2, 3, 4) for k in (None, *SHAPES)]
    + [Stands(shape=k, cell=cell) for k in SHAPES for cell in range(4)]
    + [Related(first=a, relation=r, second=b) for a in SHAPES for b in SHAPES if a != b for r in RELATIONS]
)


def certain(layouts: list[Layout]) -> Reading:
    """The reading of someone who knows the layouts."""
    number = len(layouts)
    presence = np.zeros((number, 4, 3))
    presence[..., 0] = 1.0
    colour, shape = np.full((number, 4, 6), 1 / 6), np.full((number, 4, 6, 2), 1 / 12)
    for n, layout in enumerate(layouts):
        for cell, thing in layout.things:
            presence[n, cell] = (0, 1, 0)
            colour[n, cell] = np.eye(6)[COLOUR_NAMES.index(thing.colour)]
            shape[n, cell] = 0
            shape[n, cell, SHAPES.index(thing.shape), SIZES.index(thing.size or "large")] = 1
    return Reading(presence_N4E=presence, colour_N4C=colour, shape_N4SZ=shape, plain_N=np.ones(number))


def test_every_question_survives_its_text_and_uses_known_words():
    words = set(vocabulary())
    for question in EVERY:
        assert parse_question(question.text) == question
        assert set(question.text.split()) <= words


def test_a_whole_prompt_is_a_question():
    rng = np.random.default_rng(0)
    layouts = [
        place(rng, [Object(colour="red", shape="circle", size="large"), None, last, None]) for last in (None, BLUE)
    ]
    for prompt, truth in (("a red circle", [1, 0]), ("a blood coloured coin shape and a blue star", [0, 1])):
        question = parse_question(f"is there {prompt} ?")
        assert question.text == f"is there {prompt} ?" and set(question.text.split()) <= set(vocabulary())
        assert [question.holds(layout) for layout in layouts] == truth
        assert question.probability(certain(layouts)) == pytest.approx(truth, abs=1e-9)
    assert parse_question("is there a cat on a mat ?") is None


def test_certain_readings_answer_like_the_layout():
    rng = np.random.default_rng(0)
    things = [Object(colour=c, shape=k, size=z) for c in COLOURS for k in SHAPES for z in SIZES]
    layouts = [
        place(rng, [things[int(rng.integers(len(things)))] if rng.random() < 0.6 else None for _ in range(4)])
        for _ in range(150)
    ]
    reading = certain(layouts)
    for question in EVERY:
        truth = [float(question.holds(layout)) for layout in layouts]
        assert question.probability(reading) == pytest.approx(truth, abs=1e-9), question.text


def test_probabilities_by_hand():
    presence = np.zeros((1, 4, 3))
    presence[0] = [[0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [1, 0, 0], [1, 0, 0]]
    shape = np.zeros((1, 4, 6, 2))
    shape[0, :, 0, 1] = 1.0  # Circles,
    shape[0, 1] = 0.0
    shape[0, 1, 1, 1] = 1.0  # but a square in cell 1.
    colour = np.zeros((1, 4, 6))
    colour[0, :, 0], colour[0, :, 1] = 0.9, 0.1
    reading = Reading(presence_N4E=presence, colour_N4C=colour, shape_N4SZ=shape, plain_N=np.ones(1))

    def ask(text: str) -> float:
        question = parse_question(text)
        assert question is not None
        return float(question.probability(reading)[0])

    assert ask("is there a circle ?") == pytest.approx(0.5)
    assert ask("is the circle red ?") == pytest.approx(0.5 * 0.9)
    assert ask("are there two shapes ?") == pytest.approx(0.5 * 0.8)
    assert ask("is there one shape ?") == pytest.approx(0.5 * 0.2 + 0.5 * 0.8)
    assert ask("is the circle left of the square ?") == pytest.approx(0.5 * 0.8)
    assert ask("is the circle above the square ?") == pytest.approx(0.0)
    assert ask("is there a circle above left ?") == pytest.approx(0.5)
    assert ask("is there a square above left ?") == pytest.approx(0.0)
    assert ask("are the shapes clean ?") == pytest.approx(1.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "is it nice ?",
        "is there a moon ?",
        "is there a circle left ?",
        "are the circle red ?",
        "is there two circles ?",
        "is there a circle",
    ],
)
def test_other_questions_are_not_understood(text: str):
    assert parse_question(text) is None
