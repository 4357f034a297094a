"""Wrong pictures of a scene, the reflection that says what is wrong with a picture, and what would put it right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from project.shapes.grammar import COUNT_WORDS, THINK_END, THINK_START, plural
from project.shapes.scenes import CELLS, RELATIONS, SIZES, Layout, Object, Relation, Scene, related

Pairs = Sequence[tuple[str, str]]
_NUMBERS = ("one", *COUNT_WORDS[1:])


def make_mistake(rng: np.random.Generator, scene: Scene, layout: Layout, pairs: Pairs) -> Layout:
    """`layout`, which satisfies the scene, with one thing wrong: a colour, shape, size, number or place.

    New (colour, shape) combinations are taken from `pairs`.
    """
    changes: list[Callable[[np.random.Generator, Layout, Pairs], Layout | None]] = [_recolour, _reshape, _add_or_remove]
    if any(thing.size is not None for thing in scene.objects):
        changes.append(_resize)
    if scene.relation is not None:
        # A relation is half of what its kind is about.
        changes += [_swap] * 3
    while True:
        wrong = changes[rng.integers(len(changes))](rng, layout, pairs)
        if wrong is not None and not scene.satisfied_by(wrong):
            return wrong


def _pick(rng: np.random.Generator, layout: Layout) -> tuple[int, Object]:
    things = layout.things
    return things[rng.integers(len(things))]


def _recolour(rng: np.random.Generator, layout: Layout, pairs: Pairs) -> Layout:
    cell, thing = _pick(rng, layout)
    colours = [colour for colour, shape in pairs if shape == thing.shape and colour != thing.colour]
    colour = colours[rng.integers(len(colours))]
    return layout.with_thing(cell, Object(colour=colour, shape=thing.shape, size=thing.size))


def _reshape(rng: np.random.Generator, layout: Layout, pairs: Pairs) -> Layout:
    cell, thing = _pick(rng, layout)
    shapes = [shape for colour, shape in pairs if colour == thing.colour and shape != thing.shape]
    shape = shapes[rng.integers(len(shapes))]
    return layout.with_thing(cell, Object(colour=thing.colour, shape=shape, size=thing.size))


def _resize(rng: np.random.Generator, layout: Layout, pairs: Pairs) -> Layout:
    cell, thing = _pick(rng, layout)
    size = SIZES[1 - SIZES.index(thing.size or "large")]
    return layout.with_thing(cell, Object(colour=thing.colour, shape=thing.shape, size=size))


def _add_or_remove(rng: np.random.Generator, layout: Layout, pairs: Pairs) -> Layout | None:
    cell, thing = _pick(rng, layout)
    empty = [cell for cell in range(CELLS) if layout.cells[cell] is None]
    if rng.random() < 0.5 and len(empty) < CELLS - 1:
        return layout.with_thing(cell, None)
    return layout.with_thing(empty[rng.integers(len(empty))], thing) if empty else None


def _swap(rng: np.random.Generator, layout: Layout, pairs: Pairs) -> Layout:
    """The things of two occupied cells change places."""
    (first, one), (second, other) = layout.things
    return layout.with_thing(first, other).with_thing(second, one)


def correct(scene: Scene, layout: Layout) -> Layout:
    """The layout that satisfies the scene with the fewest cells changed; the first in the order of cells if many do.

    What was right stays where it is. A new thing stands at the jitter of what it replaces, and has the size of its
    like elsewhere in the layout, else of what it replaces, else large, unless the scene names one.
    """

    def stays(cell: int, index: int | None) -> bool:
        placed = layout.cells[cell]
        return placed is None if index is None else placed is not None and placed.thing.matches(scene.objects[index])

    def kept(cells: Iterable[int | None]) -> int:
        return sum(stays(cell, index) for cell, index in enumerate(cells))

    corrected = layout
    for cell, index in enumerate(max(scene.assignments(), key=kept)):
        if not stays(cell, index):
            corrected = corrected.with_thing(
                cell, None if index is None else _sized(scene.objects[index], layout, cell)
            )
    return corrected


def _sized(demanded: Object, layout: Layout, cell: int) -> Object:
    """The demanded object, with a size that suits the layout where the scene leaves it open."""
    replaced = layout.cells[cell]
    like = [thing for _, thing in layout.things if thing.matches(demanded)]
    like += [] if replaced is None else [replaced.thing]
    size = demanded.size or (like[0].size if like else None) or "large"
    return Object(colour=demanded.colour, shape=demanded.shape, size=size)


def reflect(scene: Scene, layout: Layout, *, placed: bool = False) -> str:
    """The reflection on a picture of `layout` drawn for `scene`: its first fault in this order, or none.

    Per demanded object another colour, size or shape than demanded, or missing; then a wrong number; then a wrong
    relation. Any layout will do, also one read by the detector from a model's own picture.

    Args:
        placed: also say in which relation the two things stand where it is not the demanded one.
    """
    return f"{THINK_START} {_fault(scene, layout, placed)} {THINK_END}"


def _fault(scene: Scene, layout: Layout, placed: bool) -> str:
    if scene.satisfied_by(layout):
        return "nothing is wrong"
    things = [thing for _, thing in layout.things]
    # What is right answers for itself; each fault is sought among what is left.
    left = [thing for thing in things if not any(thing.matches(demanded) for demanded in scene.objects)]
    many = scene.count > 1
    for demanded in scene.objects:
        if left and (many or not any(thing.matches(demanded) for thing in things)):
            return _fault_of(demanded, left, many)
        if not any(thing.matches(demanded) for thing in things):
            return f"the {plural(demanded.shape)} are missing" if many else f"the {demanded.shape} is missing"
    if len(things) != scene.total:
        verb = "is" if len(things) == 1 else "are"
        return f"there {verb} {_NUMBERS[len(things) - 1]} not {_NUMBERS[scene.total - 1]}"
    first, second = scene.objects
    where = f"{_relation(scene, layout)} " if placed else ""
    return f"the {first.shape} is {where}not {scene.relation} the {second.shape}"


def _relation(scene: Scene, layout: Layout) -> Relation:
    """How the scene's first object stands to its second in a layout of just these two: the first that holds."""
    first, second = (
        next(cell for cell, thing in layout.things if thing.matches(demanded)) for demanded in scene.objects
    )
    return next(relation for relation in RELATIONS if related(first, relation, second))


def _fault_of(demanded: Object, left: Sequence[Object], many: bool) -> str:
    """What is wrong with one demanded object, given the things that match no demanded one (at least one)."""
    noun, verb = (plural(demanded.shape), "are") if many else (demanded.shape, "is")
    for thing in left:
        if thing.shape == demanded.shape and thing.colour != demanded.colour:
            return f"the {noun} {verb} {thing.colour} not {demanded.colour}"
        if thing.shape == demanded.shape:
            return f"the {noun} {verb} {thing.size} not {demanded.size}"
    thing = next((thing for thing in left if thing.colour == demanded.colour), left[0])
    return f"there {verb} {_some(thing.shape, many)} not {_some(demanded.shape, many)}"


def _some(shape: str, many: bool) -> str:
    return plural(shape) if many else f"a {shape}"
