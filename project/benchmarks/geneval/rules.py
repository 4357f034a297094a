"""GenEval's rules: is what was found in a picture what its prompt asks for? Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from project.benchmarks.geneval.detections import Box, Detection, asked_for
from project.benchmarks.geneval.items import COLORS, RELATIONS, Exclude, Include, Item

POSITION_THRESHOLD = 0.1
"""Share of both boxes' sizes that a distance must exceed."""
NEAR = 1e-3
"""Distances [pixels] below which two boxes have no relation."""
DIRECTION = 0.5
"""Least part of a direction along an axis, for a relation along it."""

Detected = Mapping[str, tuple[Detection, ...]]
"""Detections by class, the most confident first: what `detections.kept` gives."""
ColorsOf = Callable[[Sequence[Detection]], Sequence[str]]
"""Colour of each detection; asked only where a rule needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a picture is correct."""

    correct: bool
    reason: str
    """What is wrong, a line each; empty if it is correct. The words are those of the official scorer."""


def evaluate(item: Item, detected: Detected, colors_of: ColorsOf) -> Verdict:
    """Holds the detections of a picture against all rules of its prompt.

    A requirement without enough objects, or with wrong colours, is not looked at further; it cannot be the target of a
    relation either.
    """
    wrong: list[str] = []
    groups: list[tuple[Detection, ...] | None] = []
    for needed in item.include:
        found = asked_for(detected, needed.class_name, needed.count)
        faults = presence(needed, len(found))
        if not faults and needed.color is not None:
            faults = color(needed, colors_of(found))
        if not faults and needed.relation is not None:
            faults = position(needed, found, groups[needed.target])
        wrong += faults
        groups.append(None if faults else found)
    for unwanted in item.exclude:
        wrong += exclusion(unwanted, len(detected.get(unwanted.class_name, ())))
    return Verdict(correct=not wrong, reason="\n".join(wrong))


def presence(needed: Include, found: int) -> list[str]:
    """What is wrong with the number of objects: nothing (an empty list) if there are enough."""
    return [f"expected {needed.class_name}>={needed.count}, found {found}"] if found < needed.count else []


def color(needed: Include, colors: Sequence[str]) -> list[str]:
    """What is wrong with the colours of the `count` most confident objects."""
    right = colors.count(str(needed.color))
    if right >= needed.count:
        return []
    seen = ", ".join(f"{colors.count(name)} {name}" for name in COLORS if name in colors)
    return [f"expected {needed.color} {needed.class_name}>={needed.count}, found {right} {needed.color}; and {seen}"]


def position(needed: Include, found: Sequence[Detection], targets: Sequence[Detection] | None) -> list[str]:
    """What is wrong with the place of the objects: every one must have the relation to every target.

    `targets` is None where the requirement that they belong to is not met.
    """
    if targets is None:
        return [f"no target for {needed.class_name} to be {needed.relation}"]
    for detection in found:
        for target in targets:
            relations = relative_position(detection.box, target.box)
            if needed.relation not in relations:
                seen = " and ".join(relations)
                return [f"expected {needed.class_name} {needed.relation} target, found {seen} target"]
    return []


def exclusion(unwanted: Exclude, found: int) -> list[str]:
    """What is wrong with the number of objects of which there must be fewer than `count`."""
    return [f"expected {unwanted.class_name}<{unwanted.count}, found {found}"] if found >= unwanted.count else []


def relative_position(a: Box, b: Box, threshold: float = POSITION_THRESHOLD) -> tuple[str, ...]:
    """The relations of box a to box b, sorted by name; two of them on a diagonal, none if the boxes are too near.

    With the offset o = centre(a) - centre(b) and the boxes' sizes s, each axis counts by as much as it exceeds a share
    of the sizes: r = sign(o) max(|o| - threshold (s_a + s_b), 0). A relation holds along an axis where r / |o| is
    beyond 0.5. There is none if |r| < 1e-3 pixels on both axes.
    """
    corners_a, corners_b = (np.asarray(box, dtype=np.float64).reshape(2, 2) for box in (a, b))
    offset = corners_a.mean(axis=0) - corners_b.mean(axis=0)
    sizes = np.abs(np.diff(corners_a, axis=0)[0]) + np.abs(np.diff(corners_b, axis=0)[0])
    beyond = np.sign(offset) * np.maximum(np.abs(offset) - threshold * sizes, 0)
    if (np.abs(beyond) < NEAR).all():
        return ()
    dx, dy = beyond / np.linalg.norm(offset)
    held = (dx < -DIRECTION, dx > DIRECTION, dy < -DIRECTION, dy > DIRECTION)
    return tuple(sorted(name for name, holds in zip(RELATIONS, held, strict=True) if holds))
