"""What a prompt of the embedded world demands (`Scene`) and what stands in a picture (`Layout`).

A picture is 64x64 pixels with a plain light background, cut into a 2x2 grid of 32x32 cells (numbered 0 1 / 2 3);
a cell is empty or holds one object, at most 1 px off its centre. Nothing stands in a picture that its scene does
not name. A size that the scene leaves open may be either: `Scene.satisfied_by` accepts both, `sample_layout` draws
it large. "Left of" means a smaller column, whatever the rows (so with "above" and rows); `sample_layout` draws the
two objects side by side, respectively one under the other.

The two objects of a scene differ in colour and in shape, so that "the circle" names one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

PICTURE_SIZE = 64
CELL_SIZE = 32
CELLS = 4
JITTER = 1
"""Largest distance of an object's centre from its cell's centre [px], in each direction."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "green": (30, 165, 60),
    "blue": (40, 80, 230),
    "yellow": (250, 205, 20),
    "purple": (185, 45, 195),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "cross", "star", "ring")
SIZES = ("small", "large")
BACKGROUNDS: tuple[tuple[int, int, int], ...] = ((250, 250, 250), (236, 236, 236), (222, 222, 222))
"""Plain light greys; the nearest object colour is more than 180 levels (RGB distance) away."""

Kind = Literal["single", "size", "count", "pair", "relation"]
Relation = Literal["left of", "right of", "above", "below"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}


def related(first: int, relation: Relation, second: int) -> bool:
    """Whether cell `first` stands in `relation` to cell `second`."""
    (row, column), (other_row, other_column) = divmod(first, 2), divmod(second, 2)
    match relation:
        case "left of":
            return column < other_column
        case "right of":
            return column > other_column
        case "above":
            return row < other_row
        case "below":
            return row > other_row


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Object:
    """A coloured shape. In a scene `size` may be None (left open); in a layout it is always named."""

    colour: str
    shape: str
    size: str | None = None

    def __post_init__(self) -> None:
        if self.colour not in COLOURS:
            raise ValueError(f"unknown colour {self.colour!r}: choose one of {', '.join(COLOURS)}")
        if self.shape not in SHAPES:
            raise ValueError(f"unknown shape {self.shape!r}: choose one of {', '.join(SHAPES)}")
        if self.size is not None and self.size not in SIZES:
            raise ValueError(f"unknown size {self.size!r}: choose small, large or None (left open)")

    def matches(self, demanded: Object) -> bool:
        """Whether this object of a layout is what the scene's object `demanded` asks for."""
        return self.colour == demanded.colour and self.shape == demanded.shape and demanded.size in (None, self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An object in a cell, its centre `dx` to the right of and `dy` below the cell's centre [px]."""

    thing: Object
    dx: int = 0
    dy: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A concrete picture: what stands in each of the four cells, and the index of the background."""

    cells: tuple[Placed | None, Placed | None, Placed | None, Placed | None]
    background: int = 0

    @property
    def things(self) -> tuple[tuple[int, Object], ...]:
        """(cell, object) of every cell that is not empty, in the order of the cells."""
        return tuple((cell, placed.thing) for cell, placed in enumerate(self.cells) if placed is not None)

    def with_thing(self, cell: int, thing: Object | None) -> Layout:
        """The layout with another thing in a cell (or none), at the jitter of what stood there."""
        cells = list(self.cells)
        old = cells[cell]
        dx, dy = (old.dx, old.dy) if old is not None else (0, 0)
        cells[cell] = None if thing is None else Placed(thing=thing, dx=dx, dy=dy)
        return Layout(cells=(cells[0], cells[1], cells[2], cells[3]), background=self.background)

    def to_dict(self) -> dict[str, Any]:
        """A compact JSON value: {"cells": four of [colour, shape, size, dx, dy] or null, "background": index}."""
        cells = [p and [p.thing.colour, p.thing.shape, p.thing.size, p.dx, p.dy] for p in self.cells]
        return {"cells": cells, "background": self.background}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Layout:
        """Inverse of `to_dict`. Raises ValueError if `row` is no layout."""
        try:
            first, second, third, fourth = (
                None
                if cell is None
                else Placed(thing=Object(colour=cell[0], shape=cell[1], size=cell[2]), dx=dx, dy=dy)
                for cell in row["cells"]
                for dx, dy in [cell[3:] if cell is not None else (0, 0)]
            )
            background = row["background"]
            if not 0 <= background < len(BACKGROUNDS):
                raise ValueError(f"background {background} is none of 0 to {len(BACKGROUNDS) - 1}")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f'{row!r} is no layout ({error}): give {{"cells": [[colour, shape, size, dx, dy] or null, ...], '
                '"background": 0}'
            ) from error
        return cls(cells=(first, second, third, fourth), background=background)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What must be true of a picture: `count` copies of one object, or two objects, perhaps in a relation."""

    objects: tuple[Object, ...]
    count: int = 1
    relation: Relation | None = None
    """Of the first object to the second."""

    def __post_init__(self) -> None:
        if len(self.objects) not in (1, 2):
            raise ValueError(f"a scene has one or two objects, not {len(self.objects)}")
        if not 1 <= self.count <= CELLS:
            raise ValueError(f"a scene shows 1 to {CELLS} copies of an object, not {self.count}")
        if len(self.objects) == 2:
            first, second = self.objects
            if self.count != 1:
                raise ValueError("only a scene of one object has a count: leave count=1")
            if first.colour == second.colour or first.shape == second.shape:
                raise ValueError(f"the two objects of a scene differ in colour and in shape, not {self.objects}")
        elif self.relation is not None:
            raise ValueError("a relation needs two objects: give both or leave relation=None")
        if self.relation is not None and self.relation not in RELATIONS:
            raise ValueError(f"unknown relation {self.relation!r}: choose one of {', '.join(RELATIONS)}")

    @property
    def kind(self) -> Kind:
        if self.relation is not None:
            return "relation"
        if len(self.objects) == 2:
            return "pair"
        if self.count > 1:
            return "count"
        return "single" if self.objects[0].size is None else "size"

    @property
    def total(self) -> int:
        """How many objects a picture of this scene shows."""
        return self.count * len(self.objects)

    def canonical(self) -> Scene:
        """The same scene for every wording of it: equal if and only if the same layouts satisfy both."""
        if len(self.objects) == 1:
            return self
        first, second = self.objects
        swapped = self.relation in ("right of", "below")
        if self.relation is None:
            swapped = (second.shape, second.colour) < (first.shape, first.colour)
        if not swapped:
            return self
        return Scene(objects=(second, first), relation=self.relation and OPPOSITE[self.relation])

    def assignments(self) -> tuple[tuple[int | None, ...], ...]:
        """Every way to fill the four cells: per cell the index of the scene's object, None = empty."""
        return _assignments(self.count, len(self.objects), self.relation)

    def satisfied_by(self, layout: Layout) -> bool:
        """Whether all that the scene names, and nothing else, stands in the layout, in the right relation."""
        cells = layout.cells
        return any(
            all(
                placed is None if index is None else placed is not None and placed.thing.matches(self.objects[index])
                for placed, index in zip(cells, assignment, strict=True)
            )
            for assignment in self.assignments()
        )

    def to_dict(self) -> dict[str, Any]:
        """A compact JSON value: {"objects": [[colour, shape] or [colour, shape, size]], "count", "relation"}."""
        row: dict[str, Any] = {
            "objects": [[o.colour, o.shape] if o.size is None else [o.colour, o.shape, o.size] for o in self.objects]
        }
        if self.count != 1:
            row["count"] = self.count
        if self.relation is not None:
            row["relation"] = self.relation
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Scene:
        """Inverse of `to_dict`. Raises ValueError if `row` is no scene."""
        try:
            objects = tuple(
                Object(colour=colour, shape=shape, size=size[0] if size else None)
                for colour, shape, *size in row["objects"]
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f'{row!r} is no scene: give {{"objects": [[colour, shape, size], ...]}}') from error
        return cls(objects=objects, count=row.get("count", 1), relation=row.get("relation"))


def scene_of(layout: Layout, *, sized: bool = False) -> Scene | None:
    """A scene that the layout satisfies; None where none does. It names small sizes, with `sized` large ones too."""
    things = [thing for _, thing in layout.things]
    named = tuple(
        thing if sized or thing.size == "small" else Object(colour=thing.colour, shape=thing.shape)
        for thing in dict.fromkeys(things)
    )
    if len(named) == 2 and len(things) > 2:
        return None
    try:
        return Scene(objects=named, count=len(things) if len(named) == 1 else 1)
    except ValueError:
        return None


def _enumerate_assignments(count: int, objects: int, relation: Relation | None) -> tuple[tuple[int | None, ...], ...]:
    if objects == 1:
        return tuple(
            tuple(0 if mask >> cell & 1 else None for cell in range(CELLS))
            for mask in range(1 << CELLS)
            if mask.bit_count() == count
        )
    return tuple(
        tuple(0 if cell == first else 1 if cell == second else None for cell in range(CELLS))
        for first in range(CELLS)
        for second in range(CELLS)
        if first != second and (relation is None or related(first, relation, second))
    )


_ASSIGNMENTS = {
    (count, objects, relation): _enumerate_assignments(count, objects, relation)
    for count, objects, relation in (
        [(count, 1, None) for count in range(1, CELLS + 1)] + [(1, 2, relation) for relation in (None, *RELATIONS)]
    )
}


def _assignments(count: int, objects: int, relation: Relation | None) -> tuple[tuple[int | None, ...], ...]:
    return _ASSIGNMENTS[count, objects, relation]


def sample_scene(rng: np.random.Generator, kind: Kind, pairs: Sequence[tuple[str, str]]) -> Scene:
    """A scene of `kind` whose objects are (colour, shape) pairs of `pairs`, all equally likely.

    Raises ValueError if `pairs` has no two pairs that differ in colour and in shape where the kind needs them.
    """
    first = pairs[int(rng.integers(len(pairs)))]
    if kind in ("single", "size", "count"):
        size = SIZES[rng.integers(2)] if kind == "size" else None
        count = int(rng.integers(2, CELLS + 1)) if kind == "count" else 1
        return Scene(objects=(Object(colour=first[0], shape=first[1], size=size),), count=count)
    others = [pair for pair in pairs if pair[0] != first[0] and pair[1] != first[1]]
    if not others:
        raise ValueError(f"no partner for {first} among {list(pairs)}: a {kind} needs two colours and two shapes")
    second = others[rng.integers(len(others))]
    relation = RELATIONS[rng.integers(len(RELATIONS))] if kind == "relation" else None
    objects = tuple(Object(colour=colour, shape=shape) for colour, shape in (first, second))
    return Scene(objects=objects, relation=relation)


def sample_layout(rng: np.random.Generator, scene: Scene) -> Layout:
    """A layout that satisfies the scene: uniform cells, jitter and background; an open size is drawn large."""
    choices: Sequence[tuple[int | None, ...]] = scene.assignments()
    if scene.relation is not None:
        choices = [cells for cells in choices if _aligned(cells)]
    return place(rng, tuple(None if i is None else scene.objects[i] for i in choices[int(rng.integers(len(choices)))]))


def place(rng: np.random.Generator, things: Sequence[Object | None]) -> Layout:
    """The layout with `things` in its four cells, uniform jitter and background; an open size is drawn large."""
    offsets = rng.integers(-JITTER, JITTER + 1, size=(CELLS, 2)).tolist()
    first, second, third, fourth = (
        None if thing is None else Placed(thing=_sized(thing), dx=dx, dy=dy)
        for thing, (dx, dy) in zip(things, offsets, strict=True)
    )
    return Layout(cells=(first, second, third, fourth), background=int(rng.integers(len(BACKGROUNDS))))


def _sized(thing: Object) -> Object:
    return thing if thing.size is not None else Object(colour=thing.colour, shape=thing.shape, size="large")


def _aligned(assignment: tuple[int | None, ...]) -> bool:
    """Whether the two objects share a row or a column."""
    first, second = assignment.index(0), assignment.index(1)
    return first // 2 == second // 2 or first % 2 == second % 2
