"""Editing in the embedded world: a picture and an instruction -> the picture with one thing changed.

An instruction states what is to be true of the picture; whatever it does not speak of stays as it was.

    colour    "the circle is blue"        "the circles are blue"
    size      "the circle is small"
    count     "there are three circles"   "there is one circle"
    position  "the circle is left of the square"

So an instruction is a question of `project.shapes.questions` as a statement, in words of `vocabulary()`. What stays:
after a change of colour or size everything else, each object in its cell; after one of count the look of the
objects, and where they stood as far as there are still as many; after one of position all but where the two named
objects stand (who moves is left open). Jitter and the tone of the background do not count.

Pictures, before and after, are those of the world's own scenes (small objects stand alone), so that nothing but the
editing is new to a model which can draw them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Literal, get_args

import numpy as np

from project.shapes.questions import (
    Clean,
    Coloured,
    Counts,
    PictureQuestion,
    Plain,
    Related,
    Sized,
    Stands,
    parse_question,
)
from project.shapes.renderer import render
from project.shapes.scenes import (
    CELLS,
    COLOURS,
    RELATIONS,
    SIZES,
    Kind,
    Layout,
    Object,
    Relation,
    Scene,
    related,
    sample_layout,
    scene_of,
)
from project.shapes.split import Split, pair_split, sample_scene_of
from project.trajectory import Prompt, Question

EditKind = Literal["colour", "count", "size", "position"]
EDIT_KINDS: tuple[EditKind, ...] = get_args(EditKind)
Change = Coloured | Sized | Counts | Related
"""What is to become true, as the question that a picture then answers with yes."""
_RECOLOURED: tuple[Kind, ...] = ("single", "size", "count", "pair")
_TAGS: dict[EditKind, str] = {"colour": "Attribute", "count": "Count", "size": "Attribute", "position": "Spatial"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A picture and what is to be changed in it."""

    source: Layout
    change: Change

    @property
    def kind(self) -> EditKind:
        return kind_of(self.change)

    @property
    def instruction(self) -> str:
        return instruct(self.change)


def kind_of(change: Change) -> EditKind:
    match change:
        case Coloured():
            return "colour"
        case Sized():
            return "size"
        case Counts():
            return "count"
        case Related():
            return "position"


def instruct(change: Change) -> str:
    """The instruction that asks for a change."""
    verb, *words, _ = change.text.split()
    subject = 1 if words[0] == "there" else 2
    return " ".join([*words[:subject], verb, *words[subject:]])


def parse(instruction: str) -> Change | None:
    """The change that an instruction asks for; None for nonsense."""
    words = instruction.split()
    subject = 1 if words[:1] == ["there"] else 2
    change = parse_question(" ".join([*words[subject : subject + 1], *words[:subject], *words[subject + 1 :], "?"]))
    if not isinstance(change, Change) or (isinstance(change, Counts) and change.shape is None):
        return None
    return change


def apply(change: Change, source: Layout) -> tuple[Layout, ...]:
    """Every layout in which the change is made and the rest kept; new objects stand at jitter 0.

    Raises ValueError if the source holds nothing of what is to be changed, or no room for it.
    """
    if not _changeable(change, source):
        raise ValueError(f"{instruct(change)!r} asks for what cannot be done in {source.to_dict()}")
    match change:
        case Coloured(shape=shape, colour=colour):
            return (_with_all(source, shape, lambda thing: replace(thing, colour=colour)),)
        case Sized(shape=shape, size=size):
            return (_with_all(source, shape, lambda thing: replace(thing, size=size)),)
        case Counts(shape=shape, number=number):
            return _counted(source, shape or "", number)
        case Related(first=first, relation=relation, second=second):
            return _moved(source, first, relation, second)


def changed(change: Change, shown: Layout) -> bool:
    """Whether a picture of `shown` is as told, whatever became of the rest."""
    return change.holds(shown)


def kept(change: Change, source: Layout, shown: Layout) -> bool:
    """Whether a picture of `shown` kept of the source what the change does not speak of, changed as told or not."""
    before, after = _rest(change, source), _rest(change, shown)
    if isinstance(change, Counts):
        # Whichever are fewer stand where the others do.
        places, now = _cells(source, change.shape), _cells(shown, change.shape)
        return before == after and (places <= now or now <= places)
    return before == after


def questions(edit: Edit) -> tuple[Question, ...]:
    """What DVReward asks of the edited picture.

    One semantic question, whether it is as told; and whether the rest was kept (tag "Preservation"), as quality
    questions: in DVReward's geometric mean both then weigh the same, and an untouched copy is worth as little as
    a picture that shows nothing but the change.
    """
    change, source = edit.change, edit.source
    return (
        Question(text=change.text, tag=_TAGS[edit.kind]),
        *(Question(text=asked.text, kind="quality", tag="Preservation") for asked in _preserved(change, source)),
        Question(text=Clean().text, kind="quality", tag="Geometry"),
        Question(text=Plain().text, kind="quality", tag="Coherence"),
    )


def sample_edit(rng: np.random.Generator, kind: EditKind, split: Split) -> Edit:
    """An edit whose result is a scene of `split`; what is recoloured was of a seen pair before.

    So a practised or held-out pair arises by a change of colour; the other kinds change pictures of one.
    """
    match kind:
        case "colour":
            return _sample_colour(rng, split)
        case "size":
            scene = sample_scene_of(rng, "size", split)
            (thing,) = scene.objects
            small = Sized(shape=thing.shape, size=thing.size or "large")
            other = replace(thing, size=SIZES[1 - SIZES.index(small.size)])
            return Edit(source=sample_layout(rng, Scene(objects=(other,))), change=small)
        case "count":
            scene = sample_scene_of(rng, "single", split)
            before, after = (int(n) + 1 for n in rng.permutation(CELLS)[:2])
            source = sample_layout(rng, Scene(objects=scene.objects, count=before))
            return Edit(source=source, change=Counts(shape=scene.objects[0].shape, number=after))
        case "position":
            scene = sample_scene_of(rng, "pair", split)
            source = sample_layout(rng, scene)
            first, second = (scene.objects[int(n)].shape for n in rng.permutation(2))
            options = [Related(first=first, relation=relation, second=second) for relation in RELATIONS]
            untrue = [change for change in options if not change.holds(source)]
            return Edit(source=source, change=untrue[int(rng.integers(len(untrue)))])


def result_scene(edit: Edit, after: Layout) -> Scene:
    """What the edited picture shows, as its reasoning says it; one of position names its relation.

    Raises ValueError for a picture that no prompt asks for: those of `sample_edit` always have one.
    """
    scene = scene_of(after, sized=isinstance(edit.change, Sized))
    if scene is None:
        raise ValueError(f"no scene of the embedded world describes {after.to_dict()}")
    change = edit.change
    if not isinstance(change, Related):
        return scene
    first, second = sorted(scene.objects, key=lambda thing: thing.shape == change.second)
    return Scene(objects=(first, second), relation=change.relation)


def edit_of(prompt: Prompt) -> Edit:
    """The edit that a row of data/shapes/edit.jsonl describes.

    Raises ValueError, naming the row's place, if it has no `layout` or its prompt is no instruction.
    """
    where = f"{prompt.place}: " if prompt.place else ""
    change = parse(prompt.text)
    if change is None or "layout" not in prompt.columns:
        raise ValueError(
            f"{where}prompt {prompt.id!r} ({prompt.text!r}) has no layout or is no instruction of the embedded world: "
            "see project/shapes/editing.py and data/shapes/edit.jsonl"
        )
    try:
        return Edit(source=Layout.from_dict(prompt.columns["layout"]), change=change)
    except ValueError as error:
        raise ValueError(f"{where}prompt {prompt.id!r}: {error}") from error


def rendered_source(prompt: Prompt) -> np.ndarray:
    """The picture to edit, uint8 [64, 64, 3], rendered from the prompt's `layout`. Raises as `edit_of`."""
    return render(edit_of(prompt).source)


def _sample_colour(rng: np.random.Generator, split: Split) -> Edit:
    scene = sample_scene_of(rng, _RECOLOURED[rng.integers(len(_RECOLOURED))], split)
    targets = [thing for thing in scene.objects if pair_split(thing.colour, thing.shape) == split]
    target = targets[int(rng.integers(len(targets)))]
    taken = {thing.colour for thing in scene.objects}
    colours = [c for c in COLOURS if c not in taken and pair_split(c, target.shape) == "seen"]
    colour = colours[int(rng.integers(len(colours)))]
    after = sample_layout(rng, scene)
    source = _with_all(after, target.shape, lambda thing: replace(thing, colour=colour))
    return Edit(source=source, change=Coloured(shape=target.shape, colour=target.colour, many=scene.count > 1))


def _cells(layout: Layout, shape: str | None) -> frozenset[int]:
    return frozenset(cell for cell, thing in layout.things if thing.shape == shape)


def _changeable(change: Change, source: Layout) -> bool:
    match change:
        case Coloured(shape=shape) | Sized(shape=shape):
            return bool(_cells(source, shape))
        case Counts(shape=shape, number=number):
            others = len(source.things) - len(_cells(source, shape))
            return bool(_cells(source, shape)) and number + others <= CELLS
        case Related(first=first, second=second):
            return len(_cells(source, first)) == len(_cells(source, second)) == 1


def _with_all(layout: Layout, shape: str, renewed: Callable[[Object], Object]) -> Layout:
    """The layout with every object of a shape renewed in its place."""
    for cell, thing in layout.things:
        if thing.shape == shape:
            layout = layout.with_thing(cell, renewed(thing))
    return layout


def _counted(source: Layout, shape: str, number: int) -> tuple[Layout, ...]:
    """Every layout that keeps as many objects of the shape where they stand as it can, and copies one for the rest."""
    there = sorted(_cells(source, shape))
    empty = [cell for cell, placed in enumerate(source.cells) if placed is None]
    thing = source.cells[there[0]]
    assert thing is not None
    if number < len(there):
        removed = combinations(there, len(there) - number)
        return tuple(_filled(source, dict.fromkeys(cells, None)) for cells in removed)
    added = combinations(empty, number - len(there))
    return tuple(_filled(source, dict.fromkeys(cells, thing.thing)) for cells in added)


def _moved(source: Layout, first: str, relation: Relation, second: str) -> tuple[Layout, ...]:
    """Every layout with the two objects in the relation, in cells that are theirs or empty."""
    (a,), (b,) = _cells(source, first), _cells(source, second)
    things = dict(source.things)
    free = sorted({a, b} | {cell for cell, placed in enumerate(source.cells) if placed is None})
    return tuple(
        _filled(source, {a: None, b: None} | {here: things[a], there: things[b]})
        for here, there in permutations(free, 2)
        if related(here, relation, there)
    )


def _filled(layout: Layout, things: Mapping[int, Object | None]) -> Layout:
    for cell, thing in things.items():
        layout = layout.with_thing(cell, thing)
    return layout


def _rest(change: Change, layout: Layout) -> Hashable:
    """What of a layout the change does not speak of (of a change in number, but for the places)."""
    things = layout.things
    match change:
        case Coloured(shape=shape):
            return tuple((c, t.shape, t.size, None if t.shape == shape else t.colour) for c, t in things)
        case Sized(shape=shape):
            return tuple((c, t.shape, t.colour, None if t.shape == shape else t.size) for c, t in things)
        case Counts(shape=shape):
            return frozenset((None if t.shape == shape else c, t) for c, t in things)
        case Related(first=first, second=second):
            return tuple(sorted((-1 if t.shape in (first, second) else c, t) for c, t in things))


def _preserved(change: Change, source: Layout) -> Iterator[PictureQuestion]:
    """What is asked of the rest. Which objects of several go cannot be asked, nor where two stand that may move."""
    number = {shape: len(_cells(source, shape)) for shape in dict.fromkeys(t.shape for _, t in source.things)}
    if isinstance(change, Counts) and change.shape is not None:
        fewer = change.number < number[change.shape]
        number[change.shape] = change.number
    else:
        fewer = False
    asked = set()
    for cell, thing in source.things:
        shape, many = thing.shape, number[thing.shape] > 1
        if not isinstance(change, Related) and not fewer:
            yield Stands(shape=shape, cell=cell)
        if shape not in asked:
            if not (isinstance(change, Coloured) and change.shape == shape):
                yield Coloured(shape=shape, colour=thing.colour, many=many)
            if not (isinstance(change, Sized) and change.shape == shape):
                yield Sized(shape=shape, size=thing.size or "large", many=many)
        asked.add(shape)
    yield Counts(number=sum(number.values()))
