"""Examples of questions about a picture, as many with yes as with no of every type: how a model learns to look.

`decomposer` asks what one prompt demands; here anything may be asked, so that no question has a usual answer. An
example asks several questions about its picture, one after the other: reading the picture costs more than answering.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from project.data.interleaved import Example, Picture, Text
from project.shapes.degradation import add_noise, blur, with_junk, with_uneven_background
from project.shapes.grammar import COLOUR_DESCRIPTORS, DESCRIBE, SHAPE_DESCRIPTORS, describe, sample_disguises
from project.shapes.mistakes import Pairs, make_mistake
from project.shapes.own_pictures import Pool
from project.shapes.questions import (
    PLACES,
    Clean,
    Coloured,
    Counts,
    Exists,
    PictureQuestion,
    Plain,
    Related,
    Shows,
    Sized,
    Stands,
)
from project.shapes.renderer import render
from project.shapes.scenes import (
    CELLS,
    COLOURS,
    KINDS,
    RELATIONS,
    SHAPES,
    SIZES,
    Layout,
    Object,
    Scene,
    place,
    sample_layout,
    scene_of,
)
from project.shapes.split import SPLITS, Split, pairs_of, sample_scene_of, seen_words

Words = Mapping[str, Sequence[str]]
Learner = Literal["policy", "judge"]
"""A policy sees compositions and descriptors of pre-training alone; a judge sees all."""
QUESTIONS = 8
"""Most questions about one picture."""
PROMPT_RATE = 0.3
"""Share of the questions that ask for a whole prompt."""
CELL_RATE = 0.4
"""Share of the other questions that ask what stands in a cell: an answer in words teaches more than yes or no."""
QUALITY_RATE = 0.12
"""Share of the examples that ask for quality alone: there, half of the pictures are spoiled."""
CROWD_RATE = 0.2
"""Share of the pictures with any objects in any cells, which no prompt asks for."""
DEGRADED_RATE = 0.5
"""Share of the pictures that are blurred and noisy."""
RELATED = 2
"""Relations are learned last, so they are asked about 1 + RELATED times as often as any other type."""
ABSENT_RATE = 0.15
"""Probability that a question about a shape which the picture does not show may be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A question and its true answer."""

    text: str
    answer: str


def look_and_answer(rng: np.random.Generator, learner: Learner = "policy") -> Example:
    """A rendered picture, with or without a mistake, and questions about it."""
    if rng.random() < QUALITY_RATE:
        return _about_quality(rng, learner)
    pairs = _pairs(learner)
    if rng.random() < CROWD_RATE:
        layout = _crowd(rng, pairs)
        return _example(rng, render(layout), _mixed(rng, layout, _number(rng), []))
    scene = _scene(rng, learner)
    layout = sample_layout(rng, scene)
    if rng.random() < 0.5:
        layout = make_mistake(rng, scene, layout, pairs)
    return _example(rng, render(layout), _answered(rng, scene, layout, learner))


def look_at_own(rng: np.random.Generator, pool: Pool, learner: Learner = "policy") -> Example:
    """A picture that a model drew, as the detector read it, and questions about it."""
    own = pool.sample(rng)
    return _example(rng, own.pixels, _answered(rng, own.scene, own.layout, learner), degraded=0.0)


def _answered(rng: np.random.Generator, scene: Scene, layout: Layout, learner: Learner) -> list[Answered]:
    number = _number(rng)
    words = (COLOUR_DESCRIPTORS, SHAPE_DESCRIPTORS) if learner == "judge" else seen_words()
    prompts = [
        prompt_about(rng, scene, layout, _pairs(learner), *words) for _ in range(rng.binomial(number, PROMPT_RATE))
    ]
    return _mixed(rng, layout, number - len(prompts), prompts)


def _mixed(rng: np.random.Generator, layout: Layout, number: int, more: Sequence[Answered]) -> list[Answered]:
    """`number` questions about the picture and some more, in any order."""
    cells = int(rng.binomial(number, CELL_RATE))
    asked = [*(describe_cell(rng, layout) for _ in range(cells)), *sample_answered(rng, layout, number - cells), *more]
    return [asked[n] for n in rng.permutation(len(asked))]


def _example(
    rng: np.random.Generator, pixels: np.ndarray, answered: Sequence[Answered], degraded: float = DEGRADED_RATE
) -> Example:
    if rng.random() < degraded:
        blurred = blur(pixels.astype(np.float64), sigma=rng.uniform(0.0, 1.2))
        pixels = add_noise(rng, blurred, sigma=rng.uniform(0.0, 15.0))
    texts = [text for one in answered for text in (Text(text=one.text), Text(text=one.answer, loss=True))]
    return Example(blocks=(Picture(pixels=pixels, role="seen_by_vit"), *texts), task="questions")


def _about_quality(rng: np.random.Generator, learner: Learner) -> Example:
    """One question about quality (no order of questions tells the answer), and a picture with or without fault."""
    layout = sample_layout(rng, _scene(rng, learner))
    yes = bool(rng.random() < 0.5)
    question, spoiled = ((Clean(), with_junk), (Plain(), with_uneven_background))[int(rng.integers(2))]
    return _example(rng, render(layout) if yes else spoiled(rng, layout), [_yes_no(question, yes)])


def _crowd(rng: np.random.Generator, pairs: Pairs) -> Layout:
    """One to four objects of any kind."""
    number = rng.integers(1, CELLS + 1)
    things = [
        Object(colour=colour, shape=shape, size=SIZES[rng.integers(len(SIZES))])
        for colour, shape in (pairs[n] for n in rng.integers(len(pairs), size=number))
    ]
    cells = [*things, *[None] * (CELLS - number)]
    return place(rng, [cells[n] for n in rng.permutation(CELLS)])


def _scene(rng: np.random.Generator, learner: Learner) -> Scene:
    split: Split = SPLITS[rng.integers(len(SPLITS))] if learner == "judge" else "seen"
    return sample_scene_of(rng, KINDS[rng.integers(len(KINDS))], split)


def _pairs(learner: Learner) -> Pairs:
    return [pair for split in (SPLITS if learner == "judge" else ("seen",)) for pair in pairs_of(split)]


def _yes_no(question: PictureQuestion, yes: bool) -> Answered:
    return Answered(text=question.text, answer="yes" if yes else "no")


def _number(rng: np.random.Generator) -> int:
    return int(rng.integers(1, QUESTIONS + 1))


def describe_cell(rng: np.random.Generator, layout: Layout) -> Answered:
    """What stands in one of the four cells: "describe above left" -> "a small red circle", or "nothing"."""
    cell = int(rng.integers(CELLS))
    thing = dict(layout.things).get(cell)
    answer = "nothing" if thing is None else describe(Scene(objects=(thing,)))
    return Answered(text=f"{DESCRIBE} {PLACES[cell]}", answer=answer)


def sample_answered(rng: np.random.Generator, layout: Layout, number: int) -> list[Answered]:
    """Yes/no questions about a clean picture of `layout`: types alike, yes and no alike where both are possible."""
    by_type: dict[tuple[type[PictureQuestion], bool], list[Answered]] = defaultdict(list)
    present = {thing.shape for _, thing in layout.things}
    for question in _askable(layout, present):
        about_absent = getattr(question, "shape", None) not in (None, *present) and not isinstance(question, Exists)
        if about_absent and rng.random() > ABSENT_RATE:
            continue
        yes = question.holds(layout)
        by_type[type(question), yes].append(_yes_no(question, yes))
    types = sorted({kind for kind, _ in by_type}, key=lambda kind: kind.__name__)
    types += [Related] * RELATED * (Related in types)
    return [_one_of(rng, by_type, types) for _ in range(number)]


def prompt_about(
    rng: np.random.Generator, scene: Scene, layout: Layout, pairs: Pairs, colours: Words, shapes: Words
) -> Answered:
    """Whether the picture shows all that a prompt asks for: that of the scene, or one that is near it.

    The near one asks for what a picture with one mistake would show. Half of the prompts are indirect, in the given
    words.
    """
    asked = _near(rng, scene, layout, pairs) if rng.random() < 0.5 else scene
    disguises = sample_disguises(rng, asked, colours, shapes) if rng.random() < 0.5 else None
    return _yes_no(Shows(prompt=describe(asked, disguises), scene=asked), asked.satisfied_by(layout))


def _near(rng: np.random.Generator, scene: Scene, layout: Layout, pairs: Pairs) -> Scene:
    """What the layout shows where that is not the scene, else what it would show with a mistake; perhaps the scene."""
    for _ in range(8):
        other = scene_of(make_mistake(rng, scene, layout, pairs) if scene.satisfied_by(layout) else layout)
        if other is None:
            continue
        if scene.relation is not None and len(other.objects) == 2:
            relation = RELATIONS[rng.integers(len(RELATIONS))]
            other = Scene(objects=other.objects, relation=relation)
        return other
    return scene


def _askable(layout: Layout, present: set[str]) -> Iterator[PictureQuestion]:
    number = {shape: sum(thing.shape == shape for _, thing in layout.things) for shape in SHAPES}
    for shape in SHAPES:
        many = number[shape] > 1
        yield Exists(shape=shape)
        yield from (Coloured(shape=shape, colour=colour, many=many) for colour in COLOURS)
        yield from (Sized(shape=shape, size=size, many=many) for size in SIZES)
        yield from (Stands(shape=shape, cell=cell) for cell in range(CELLS))
        if shape in present:
            yield from (Counts(number=n, shape=shape) for n in range(1, CELLS + 1))
    yield from (Counts(number=n) for n in range(1, CELLS + 1))
    for first, second in permutations(sorted(present), 2):
        yield from (Related(first=first, relation=relation, second=second) for relation in RELATIONS)


def _one_of(
    rng: np.random.Generator,
    by_type: Mapping[tuple[type[PictureQuestion], bool], Sequence[Answered]],
    types: Sequence[type[PictureQuestion]],
) -> Answered:
    kind = types[int(rng.integers(len(types)))]
    yes = bool(rng.random() < 0.5)
    fitting = by_type.get((kind, yes)) or by_type[kind, not yes]
    return fitting[int(rng.integers(len(fitting)))]
