"""Who finds the objects of a picture, and how one sees that it works."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from project.benchmarks.geneval.detections import COUNTING_THRESHOLD, Box, Detection, kept, overlap
from project.core.images import read_picture

KNOWN_PICTURE = "grace_hopper.jpg"
"""A photograph of one person, which matplotlib brings along (public domain, 512x600)."""
KNOWN_CLASS = "person"
KNOWN_BOX: Box = (15.0, 20.0, 508.0, 600.0)
LEAST_OVERLAP = 0.7
"""Of the known box and the one found."""
SHOWN = 3
"""Detections that a message names."""


class Detector(ABC):
    """Finds objects of GenEval's classes in pictures."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What results made with it are called, e.g. geneval-hf."""

    @abstractmethod
    def preflight(self) -> None:
        """Checks, before pictures are drawn, that it works. Raises ValueError or FileNotFoundError with the remedy."""

    @abstractmethod
    def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[tuple[Detection, ...]]:
        """The objects in each picture, with any confidence; `detections.kept` chooses.

        Args:
            images: uint8 [height, width, 3] each.
            names: of the pictures, ITEM/SAMPLE as `summary.picture_name` gives.

        Raises:
            ValueError: if there are not as many names as images.
        """


def check_named(images: Sequence[np.ndarray], names: Sequence[str]) -> None:
    """Raises ValueError unless every picture has a name."""
    if len(images) != len(names):
        raise ValueError(f"{len(images)} pictures and {len(names)} names: give a name for each picture")


def known_picture() -> np.ndarray:
    """The picture of the self-test, uint8 [600, 512, 3]."""
    from matplotlib.cbook import get_sample_data

    return read_picture(get_sample_data(KNOWN_PICTURE, asfileobj=False))


def self_test(detector: Detector) -> None:
    """Shows the detector a photograph of one person: it must find just that one, and where it is.

    Raises ValueError if it does not.
    """
    (found,) = detector.detect([known_picture()], [KNOWN_PICTURE])
    people = kept(found, counting=True).get(KNOWN_CLASS, ())
    if len(people) == 1 and overlap(people[0].box, KNOWN_BOX) >= LEAST_OVERLAP:
        return
    best = sorted(found, key=lambda one: -one.score)[:SHOWN]
    seen = ", ".join(f"{one.class_name} {one.score:.2f} at {one.box}" for one in best)
    raise ValueError(
        f"detector {detector.label} does not see the one {KNOWN_CLASS} of a known photograph ({KNOWN_PICTURE}, about "
        f"{KNOWN_BOX}) with a confidence above {COUNTING_THRESHOLD}; it sees {seen or 'nothing'}: its weights or "
        "classes are not those of a COCO instance detector, take facebook/mask2former-swin-small-coco-instance"
    )
