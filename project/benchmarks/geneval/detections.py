"""What a detector found, and which of it counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

THRESHOLD = 0.3
"""Confidence that a detection must exceed."""
COUNTING_THRESHOLD = 0.9
"""The same for prompts about counting."""
MAX_OBJECTS = 16
"""Most detections of a class."""
MAX_OVERLAP = 1.0
"""Overlap from which the less confident of two detections is dropped; 1 keeps all."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 [pixels], from the upper left corner of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """An object that a detector found in a picture."""

    class_name: str
    box: Box
    score: float
    """Confidence, in [0, 1]."""
    mask_HW: np.ndarray | None = field(default=None, compare=False, repr=False)
    """bool [height, width] of the picture: which pixels are the object's; None if nobody says."""


def kept(
    detections: Iterable[Detection],
    counting: bool,
    max_overlap: float = MAX_OVERLAP,
    max_objects: int = MAX_OBJECTS,
) -> dict[str, tuple[Detection, ...]]:
    """The detections that count, by class, the most confident first; a class without any is left out.

    Kept are those with a score above the threshold (not at it), at most `max_objects` of a class. Of two with the same
    score the later one comes first, as in the official scorer.

    Args:
        detections: of one picture.
        counting: the prompt is about counting, so the higher threshold holds.
        max_overlap: a detection is dropped if a kept one overlaps it by as much, see `overlap`; 1 drops none.
        max_objects: most detections of a class, before overlapping ones are dropped.
    """
    threshold = COUNTING_THRESHOLD if counting else THRESHOLD
    by_class: dict[str, list[Detection]] = {}
    for found in detections:
        if found.score > threshold:
            by_class.setdefault(found.class_name, []).append(found)
    return {name: _apart(_best(found, max_objects), max_overlap) for name, found in by_class.items()}


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, whose corners are pixels that belong to them (sides are one longer)."""
    common = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - common
    return common / union if union else 0.0


def asked_for(detected: Mapping[str, tuple[Detection, ...]], class_name: str, count: int) -> tuple[Detection, ...]:
    """The `count` most confident detections of a class, or all if they are fewer."""
    return detected.get(class_name, ())[:count]


def _area(box: Box) -> float:
    return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)


def _best(found: list[Detection], most: int) -> list[Detection]:
    return sorted(reversed(found), key=lambda detection: -detection.score)[:most]


def _apart(ordered: list[Detection], max_overlap: float) -> tuple[Detection, ...]:
    if max_overlap == 1:
        return tuple(ordered)
    chosen: list[Detection] = []
    for candidate in ordered:
        if all(overlap(candidate.box, better.box) < max_overlap for better in chosen):
            chosen.append(candidate)
    return tuple(chosen)
