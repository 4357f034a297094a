"""The yes/no questions about pictures: text <-> meaning, and how a reading or a layout answers them.

    is there a circle ?               Exists          are there three circles ?         Counts(shape)
    is the circle red ?               Coloured        are there three shapes ?          Counts(any)
    is the circle small ?             Sized           is the circle left of the square ?   Related
    is there a circle above left ?    Stands
    are the shapes clean ?            Clean           is the background plain ?         Plain
    is there a red circle left of a blue square ?     Shows(prompt): the whole prompt, direct or not, and nothing else

"The circle" means every circle there is, and at least one ("are the circles red ?" asks the same of several). All
probabilities follow exactly from a reading, whose cells are independent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from project.shapes.grammar import COUNT_WORDS, parse, plural
from project.shapes.reading import COLOUR_NAMES, Reading
from project.shapes.scenes import CELLS, COLOURS, RELATIONS, SHAPES, SIZES, Layout, Relation, Scene, related

_CLEAN = "are the shapes clean ?"
_PLAIN = "is the background plain ?"
PLACES = ("above left", "above right", "below left", "below right")
"""What the cells are called."""
_NUMBERS = ("one", *COUNT_WORDS[1:])


class PictureQuestion(ABC):
    """A question that pictures answer."""

    @property
    @abstractmethod
    def text(self) -> str:
        """Its wording, in the words of `vocabulary()`."""

    @abstractmethod
    def probability(self, reading: Reading) -> np.ndarray:
        """[N]: probability of "yes" for each picture read."""

    @abstractmethod
    def holds(self, layout: Layout) -> bool:
        """The answer for a picture that renders `layout`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exists(PictureQuestion):
    shape: str

    @property
    def text(self) -> str:
        return f"is there a {self.shape} ?"

    def probability(self, reading: Reading) -> np.ndarray:
        return 1 - (1 - _shape(reading, self.shape)).prod(-1)

    def holds(self, layout: Layout) -> bool:
        return any(thing.shape == self.shape for _, thing in layout.things)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coloured(PictureQuestion):
    shape: str
    colour: str
    many: bool = False

    @property
    def text(self) -> str:
        return f"{_the(self.shape, self.many)} {self.colour} ?"

    def probability(self, reading: Reading) -> np.ndarray:
        share_N4 = reading.colour_N4C[..., COLOUR_NAMES.index(self.colour)]
        return _all_and_some(_shape(reading, self.shape), share_N4)

    def holds(self, layout: Layout) -> bool:
        colours = {thing.colour for _, thing in layout.things if thing.shape == self.shape}
        return colours == {self.colour}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized(PictureQuestion):
    shape: str
    size: str
    many: bool = False

    @property
    def text(self) -> str:
        return f"{_the(self.shape, self.many)} {self.size} ?"

    def probability(self, reading: Reading) -> np.ndarray:
        joint_N4Z = reading.shape_N4SZ[..., SHAPES.index(self.shape), :]
        share_N4 = joint_N4Z[..., SIZES.index(self.size)] / np.maximum(joint_N4Z.sum(-1), 1e-12)
        return _all_and_some(_shape(reading, self.shape), share_N4)

    def holds(self, layout: Layout) -> bool:
        return {thing.size for _, thing in layout.things if thing.shape == self.shape} == {self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts(PictureQuestion):
    number: int
    shape: str | None = None
    """None counts everything that stands in the picture, named or not."""

    @property
    def text(self) -> str:
        noun = self.shape or "shape"
        verb = "is" if self.number == 1 else "are"
        return f"{verb} there {_NUMBERS[self.number - 1]} {noun if self.number == 1 else plural(noun)} ?"

    def probability(self, reading: Reading) -> np.ndarray:
        present_N4 = 1 - reading.presence_N4E[..., 0] if self.shape is None else _shape(reading, self.shape)
        number_N5 = np.zeros((len(reading), CELLS + 1))
        number_N5[:, 0] = 1.0
        for cell in range(CELLS):  # The distribution of a sum of independent yes/no variables.
            present_N1 = present_N4[:, cell, None]
            moved_N5 = np.pad(number_N5[:, :-1], ((0, 0), (1, 0)))
            number_N5 = number_N5 * (1 - present_N1) + moved_N5 * present_N1
        return number_N5[:, self.number]

    def holds(self, layout: Layout) -> bool:
        return sum(self.shape in (None, thing.shape) for _, thing in layout.things) == self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Related(PictureQuestion):
    first: str
    relation: Relation
    second: str

    @property
    def text(self) -> str:
        return f"is the {self.first} {self.relation} the {self.second} ?"

    def probability(self, reading: Reading) -> np.ndarray:
        # Every `first` lies on one side of the picture and every `second` on the other, and both are there.
        near = [cell for cell in range(CELLS) if any(related(cell, self.relation, other) for other in range(CELLS))]
        far = [cell for cell in range(CELLS) if cell not in near]
        first_N4, second_N4 = _shape(reading, self.first), _shape(reading, self.second)
        neither_N4 = 1 - first_N4 - second_N4
        first_N = (1 - second_N4[:, near]).prod(-1) - neither_N4[:, near].prod(-1)
        second_N = (1 - first_N4[:, far]).prod(-1) - neither_N4[:, far].prod(-1)
        return np.clip(first_N, 0.0, 1.0) * np.clip(second_N, 0.0, 1.0)

    def holds(self, layout: Layout) -> bool:
        first = [cell for cell, thing in layout.things if thing.shape == self.first]
        second = [cell for cell, thing in layout.things if thing.shape == self.second]
        return bool(first and second) and all(related(a, self.relation, b) for a in first for b in second)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stands(PictureQuestion):
    """Whether there is such a shape in this very cell."""

    shape: str
    cell: int

    @property
    def text(self) -> str:
        return f"is there a {self.shape} {PLACES[self.cell]} ?"

    def probability(self, reading: Reading) -> np.ndarray:
        return _shape(reading, self.shape)[:, self.cell]

    def holds(self, layout: Layout) -> bool:
        return (self.cell, self.shape) in {(cell, thing.shape) for cell, thing in layout.things}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clean(PictureQuestion):
    """Whether every shape is drawn well enough to be one of the six."""

    @property
    def text(self) -> str:
        return _CLEAN

    def probability(self, reading: Reading) -> np.ndarray:
        return (1 - reading.presence_N4E[..., 2]).prod(-1)

    def holds(self, layout: Layout) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain(PictureQuestion):
    """Whether the background is one of the plain tones, evenly."""

    @property
    def text(self) -> str:
        return _PLAIN

    def probability(self, reading: Reading) -> np.ndarray:
        return reading.plain_N

    def holds(self, layout: Layout) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Shows(PictureQuestion):
    """Whether the picture is what a prompt asks for: its scene, and nothing else on a plain background."""

    prompt: str
    scene: Scene

    @property
    def text(self) -> str:
        return f"is there {self.prompt} ?"

    def probability(self, reading: Reading) -> np.ndarray:
        return reading.confidence([self.scene] * len(reading))

    def holds(self, layout: Layout) -> bool:
        return self.scene.satisfied_by(layout)


def _the(shape: str, many: bool) -> str:
    return f"are the {plural(shape)}" if many else f"is the {shape}"


def _shape(reading: Reading, shape: str) -> np.ndarray:
    """[N, 4]: probability that a cell holds an object of this shape."""
    return reading.presence_N4E[..., 1] * reading.shape_N4SZ[..., SHAPES.index(shape), :].sum(-1)


def _all_and_some(present_N4: np.ndarray, share_N4: np.ndarray) -> np.ndarray:
    """[N]: probability that something is present and that all that is present has a property of probability share."""
    return np.clip((1 - present_N4 * (1 - share_N4)).prod(-1) - (1 - present_N4).prod(-1), 0.0, 1.0)


@lru_cache(maxsize=4096)
def parse_question(text: str) -> PictureQuestion | None:
    """The question that a text asks; None if it asks nothing about the embedded world."""
    if text == _CLEAN:
        return Clean()
    if text == _PLAIN:
        return Plain()
    question = _parse_words(text.split())
    return question if question is not None and question.text == text else None


def _parse_words(words: list[str]) -> PictureQuestion | None:
    """A reading of the words by position; the caller checks that the question found has exactly this wording."""
    match words:
        case ["is", "there", "a", shape, "?"] if shape in SHAPES:
            return Exists(shape=shape)
        case ["is", "there", "a", shape, *place, "?"] if shape in SHAPES and " ".join(place) in PLACES:
            return Stands(shape=shape, cell=PLACES.index(" ".join(place)))
        case ["is" | "are", "there", number, noun, "?"] if number in _NUMBERS:
            shape = _singular(noun)
            if shape in (*SHAPES, "shape"):
                return Counts(number=_NUMBERS.index(number) + 1, shape=None if shape == "shape" else shape)
        case ["is" | "are", "the", noun, value, "?"] if _singular(noun) in SHAPES:
            shape, many = _singular(noun), words[0] == "are"
            if value in COLOURS:
                return Coloured(shape=shape, colour=value, many=many)
            if value in SIZES:
                return Sized(shape=shape, size=value, many=many)
        case ["is", "the", first, *relation, "the", second, "?"] if first in SHAPES and second in SHAPES:
            for name in RELATIONS:
                if " ".join(relation) == name:
                    return Related(first=first, relation=name, second=second)
        case ["is", "there", *prompt, "?"] if scene := parse(" ".join(prompt), indirect=True):
            return Shows(prompt=" ".join(prompt), scene=scene)
    return None


def _singular(noun: str) -> str:
    return next((shape for shape in (*SHAPES, "shape") if noun == plural(shape)), noun)
