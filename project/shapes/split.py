"""Which compositions and which descriptors pre-training, RL and evaluation may use.

Compositions. The 36 (colour, shape) pairs are parted along the diagonals (shape - colour) mod 6 of their table, so
every colour and every shape occurs equally often in each part:

    seen       24 pairs  4 diagonals  pre-training, RL, evaluation
    practised   6 pairs  diagonal 2   RL and evaluation
    held_out    6 pairs  diagonal 5   evaluation only

A scene is `seen` if all its pairs are; `practised` if it has at least one practised pair and otherwise seen ones;
`held_out` if it has at least one held-out pair and no practised one. This holds for every kind of scene.

Descriptors. Each colour and each shape has two; the second one of four colours and four shapes is never shown in
pre-training (8 of 12 each are seen). RL practises all of them; evaluation draws them uniformly.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

import numpy as np

from project.shapes.grammar import COLOUR_DESCRIPTORS, SHAPE_DESCRIPTORS
from project.shapes.scenes import COLOURS, SHAPES, Kind, Scene, sample_scene

Split = Literal["seen", "practised", "held_out"]
SPLITS: tuple[Split, ...] = get_args(Split)
PRACTISED_DIAGONAL = 2
HELD_OUT_DIAGONAL = 5

UNSEEN_COLOUR_DESCRIPTORS = frozenset({"cherry", "moss", "banana", "night"})
UNSEEN_SHAPE_DESCRIPTORS = frozenset({"plate", "window", "windmill", "asterisk"})


def pair_split(colour: str, shape: str) -> Split:
    """The part of the table that a (colour, shape) pair belongs to."""
    diagonal = (SHAPES.index(shape) - tuple(COLOURS).index(colour)) % len(SHAPES)
    if diagonal == PRACTISED_DIAGONAL:
        return "practised"
    return "held_out" if diagonal == HELD_OUT_DIAGONAL else "seen"


@cache
def pairs_of(split: Split) -> tuple[tuple[str, str], ...]:
    """The (colour, shape) pairs of a part."""
    return tuple((colour, shape) for colour in COLOURS for shape in SHAPES if pair_split(colour, shape) == split)


def scene_split(scene: Scene) -> Split | None:
    """The part that a scene belongs to; None if it mixes practised and held-out pairs (such a scene is not used)."""
    splits = {pair_split(thing.colour, thing.shape) for thing in scene.objects}
    if {"practised", "held_out"} <= splits:
        return None
    return "practised" if "practised" in splits else "held_out" if "held_out" in splits else "seen"


def sample_scene_of(rng: np.random.Generator, kind: Kind, split: Split) -> Scene:
    """A scene of `kind` in `split`: for two objects uniform over the pairs of pairs that the split allows."""
    allowed = pairs_of("seen") if split == "seen" else pairs_of("seen") + pairs_of(split)
    if kind in ("single", "size", "count"):
        return sample_scene(rng, kind, pairs_of(split))
    while True:
        scene = sample_scene(rng, kind, allowed)
        if scene_split(scene) == split:
            return scene


@cache
def seen_words() -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """The descriptors of each colour and of each shape that pre-training may use."""
    return (
        {value: _without(words, UNSEEN_COLOUR_DESCRIPTORS) for value, words in COLOUR_DESCRIPTORS.items()},
        {value: _without(words, UNSEEN_SHAPE_DESCRIPTORS) for value, words in SHAPE_DESCRIPTORS.items()},
    )


def _without(words: tuple[str, ...], unseen: frozenset[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in unseen)
