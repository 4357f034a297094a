"""The language of the embedded world: scene -> prompt, prompt -> scene, and the words of the reasoning.

Direct:   "three small red circles", "a red circle left of a blue square"
Indirect: "three small blood coloured circles", "a red coin shape left of a sky coloured square", with `<word>
          coloured` in place of a colour and `<word> shape` in place of a shape. Counts, sizes and relations are always
          said plainly, so an indirect prompt carries everything needed; each of its objects has an attribute disguised.

    prompt    := phrase | "a" noun ("and" | relation) "a" noun
    phrase    := ("a" | "two" | "three" | "four") noun
    noun      := [size] (colour | word "coloured") (shape | word "shape"), in the plural after two, three, four

Words are separated by single spaces; all are lower case. The article is always "a".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from project.shapes.scenes import COLOURS, RELATIONS, SHAPES, SIZES, Object, Relation, Scene

THINK_START = "<think>"
THINK_END = "</think>"
THINK = "think"
"""System text of drawing and refining with reasoning."""
DESCRIBE = "describe"
"""Instruction of captions."""
REFLECT = "reflect"
"""First word of the instruction of a refinement; the prompt follows."""

COLOUR_DESCRIPTORS: dict[str, tuple[str, str]] = {
    "red": ("blood", "cherry"),
    "green": ("grass", "moss"),
    "blue": ("ocean", "sky"),
    "yellow": ("lemon", "banana"),
    "purple": ("grape", "plum"),
    "black": ("coal", "night"),
}
SHAPE_DESCRIPTORS: dict[str, tuple[str, str]] = {
    "circle": ("coin", "plate"),
    "square": ("tile", "window"),
    "triangle": ("tent", "pyramid"),
    "cross": ("plus", "windmill"),
    "star": ("starfish", "asterisk"),
    "ring": ("donut", "tyre"),
}
COUNT_WORDS = ("a", "two", "three", "four")

_COLOUR_OF = {word: colour for colour, words in COLOUR_DESCRIPTORS.items() for word in words}
_SHAPE_OF = {word: shape for shape, words in SHAPE_DESCRIPTORS.items() for word in words}
_QUESTION_WORDS = ("is", "are", "there", "the", "one", "clean", "background", "plain", "yes", "no", "?")
_REFLECTION_WORDS = ("not", "nothing", "wrong", "missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disguise:
    """The descriptors that stand for an object's colour and shape in an indirect prompt; None = said plainly."""

    colour: str | None = None
    shape: str | None = None


def vocabulary() -> tuple[str, ...]:
    """Every word of prompts, reasoning, captions, questions and reflections, sorted."""
    words = {THINK_START, THINK_END, THINK, DESCRIBE, REFLECT, "and", "coloured", "shape", "shapes"}
    words.update(COUNT_WORDS, COLOURS, SHAPES, map(plural, SHAPES), SIZES, _COLOUR_OF, _SHAPE_OF)
    words.update(_QUESTION_WORDS, _REFLECTION_WORDS)
    words.update(word for relation in RELATIONS for word in relation.split())
    return tuple(sorted(words))


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def describe(scene: Scene, disguises: Sequence[Disguise] | None = None) -> str:
    """The prompt of a scene: direct, or with one disguise per object.

    Raises ValueError if a disguise does not stand for its object's colour or shape.
    """
    disguises = disguises or (Disguise(),) * len(scene.objects)
    phrases = [
        f"{COUNT_WORDS[scene.count - 1]} {_noun(thing, disguise, scene.count > 1)}"
        for thing, disguise in zip(scene.objects, disguises, strict=True)
    ]
    return f" {scene.relation or 'and'} ".join(phrases)


def _noun(thing: Object, disguise: Disguise, many: bool) -> str:
    colour, shape = thing.colour, plural(thing.shape) if many else thing.shape
    if disguise.colour is not None:
        if _COLOUR_OF.get(disguise.colour) != thing.colour:
            raise ValueError(f"{disguise.colour!r} is no descriptor of {thing.colour}: see COLOUR_DESCRIPTORS")
        colour = f"{disguise.colour} coloured"
    if disguise.shape is not None:
        if _SHAPE_OF.get(disguise.shape) != thing.shape:
            raise ValueError(f"{disguise.shape!r} is no descriptor of {thing.shape}: see SHAPE_DESCRIPTORS")
        shape = f"{disguise.shape} {'shapes' if many else 'shape'}"
    return f"{thing.size} {colour} {shape}" if thing.size else f"{colour} {shape}"


def sample_disguises(
    rng: np.random.Generator,
    scene: Scene,
    colour_words: Mapping[str, Sequence[str]],
    shape_words: Mapping[str, Sequence[str]],
    both: float = 0.6,
) -> tuple[Disguise, ...]:
    """One disguise per object: of both attributes with probability `both`, else of colour or shape alone.

    `colour_words` and `shape_words` list, per value, the descriptors to draw from (a repeated one is likelier).
    """
    disguises = []
    for thing in scene.objects:
        plain = "" if rng.random() < both else ("colour", "shape")[rng.integers(2)]
        colours, shapes = colour_words[thing.colour], shape_words[thing.shape]
        disguises.append(
            Disguise(
                colour=None if plain == "colour" else colours[int(rng.integers(len(colours)))],
                shape=None if plain == "shape" else shapes[int(rng.integers(len(shapes)))],
            )
        )
    return tuple(disguises)


def parse(text: str, *, indirect: bool = False) -> Scene | None:
    """The scene of a direct prompt (with `indirect=True` descriptors are understood too); None for nonsense."""
    words = text.split()
    first, rest = _parse_phrase(words, indirect)
    if first is None:
        return None
    thing, count = first
    try:
        if not rest:
            return Scene(objects=(thing,), count=count)
        joint, rest = _parse_joint(rest)
        second, rest = _parse_phrase(rest, indirect) if joint is not None else (None, rest)
        if second is None or rest or count != 1 or second[1] != 1:
            return None
        return Scene(objects=(thing, second[0]), relation=None if joint == "and" else joint)
    except ValueError:
        return None


def _parse_joint(words: list[str]) -> tuple[Relation | Literal["and"] | None, list[str]]:
    """A leading "and" or relation, and what follows it."""
    joints: tuple[Relation | Literal["and"], ...] = ("and", *RELATIONS)
    for joint in joints:
        parts = joint.split()
        if words[: len(parts)] == parts:
            return joint, words[len(parts) :]
    return None, words


def _parse_phrase(words: list[str], indirect: bool) -> tuple[tuple[Object, int] | None, list[str]]:
    """A leading count, size, colour and shape, and what follows them."""
    if len(words) < 3 or words[0] not in COUNT_WORDS:
        return None, words
    count, words = COUNT_WORDS.index(words[0]) + 1, words[1:]
    size = words[0] if words[0] in SIZES else None
    words = words if size is None else words[1:]
    colour, words = _parse_colour(words, indirect)
    shape, words = _parse_shape(words, indirect, count > 1)
    if colour is None or shape is None:
        return None, words
    return (Object(colour=colour, shape=shape, size=size), count), words


def _parse_colour(words: list[str], indirect: bool) -> tuple[str | None, list[str]]:
    if words and words[0] in COLOURS:
        return words[0], words[1:]
    if indirect and words[1:2] == ["coloured"]:
        return _COLOUR_OF.get(words[0]), words[2:]
    return None, words


def _parse_shape(words: list[str], indirect: bool, many: bool) -> tuple[str | None, list[str]]:
    for shape in SHAPES:
        if words[:1] == [plural(shape) if many else shape]:
            return shape, words[1:]
    if indirect and words[1:2] == ["shapes" if many else "shape"]:
        return _SHAPE_OF.get(words[0]), words[2:]
    return None, words


def think(scene: Scene) -> str:
    """The reasoning that a prompt of this scene calls for: its direct description between the think words."""
    return f"{THINK_START} {describe(scene)} {THINK_END}"


def read_reasoning(text: str) -> Scene | None:
    """The scene that a reasoning text arrives at: what stands between its think words, None if that is nonsense.

    Special tokens of a tokenizer around the text must have been removed. Compare with `Scene.canonical`.
    """
    words = text.split()
    if len(words) < 2 or words[0] != THINK_START or words[-1] != THINK_END:
        return None
    return parse(" ".join(words[1:-1]))
