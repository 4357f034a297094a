"""Detections that another program made, e.g. mmdet: read from a file instead of made here."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks.geneval.detections import THRESHOLD, Detection
from project.benchmarks.geneval.detector import Detector, check_named
from project.benchmarks.geneval.items import CLASSES, RENAMED, class_remedy
from project.benchmarks.geneval.masks import RunLengths, run_lengths
from project.core.json_files import read_rows

log = logging.getLogger(__name__)


class DetectionsFile(Detector):
    """Detections from a file with one JSON object a line, one for each picture:

        {"picture": "00012/3", "detections": [{"class": "dog", "box": [x0, y0, x1, y1], "score": 0.97,
         "mask": {"size": [height, width], "counts": "..."}}]}

    `picture` is ITEM/SAMPLE. Classes have GenEval's or COCO's names. A mask is COCO's run-length encoding, as a text
    (what pycocotools gives) or as a list of numbers. Without masks CLIP sees the background of an object too, and
    colours differ from the protocol's; that is warned of.

    Args:
        file: path.
        detector: who made the detections, e.g. "mmdet mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco". Results are
            labelled so.

    Raises:
        ValueError: if nobody made them.
    """

    def __init__(self, file: str, detector: str) -> None:
        if not detector.strip():
            raise ValueError("detector is empty: say which program and network made the detections")
        self.file = file
        self.detector = detector.strip()
        self._found: dict[str, tuple[Encoded, ...]] | None = None

    @property
    def label(self) -> str:
        return f"geneval ({self.detector}, from a file)"

    def preflight(self) -> None:
        """Reads the file.

        Raises:
            FileNotFoundError: without it.
            ValueError: naming file and line, for what it should not hold.
        """
        self._ready()

    def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[tuple[Detection, ...]]:
        """Raises ValueError for a picture that the file does not have, or that has another size than its masks."""
        check_named(images, names)
        return [self._of(name, image.shape[:2]) for image, name in zip(images, names, strict=True)]

    def _of(self, name: str, size: tuple[int, int]) -> tuple[Detection, ...]:
        found = self._ready()
        if name not in found:
            raise ValueError(
                f"{self.file} has no row of picture {name}; it has {len(found)} pictures, such as {next(iter(found))}: "
                "make detections of all pictures, an empty list where nothing is found"
            )
        for one in found[name]:
            if one.mask is not None and (one.mask.height, one.mask.width) != size:
                raise ValueError(
                    f"{self.file}: a mask of picture {name} is {one.mask.height}x{one.mask.width}, the picture "
                    f"{size[0]}x{size[1]}: make the detections on these very pictures"
                )
        return tuple(one.decoded() for one in found[name])

    def _ready(self) -> Mapping[str, tuple[Encoded, ...]]:
        if self._found is None:
            self._found = read_detections(Path(self.file))
        return self._found


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A detection as it is kept in memory: a benchmark's masks would not fit there."""

    detection: Detection
    """Without its mask."""
    mask: RunLengths | None
    """None for one that the file lacks, and for a detection so unsure that no rule looks at it."""

    def decoded(self) -> Detection:
        return self.detection if self.mask is None else replace(self.detection, mask_HW=self.mask.mask())


def read_detections(file: Path) -> dict[str, tuple[Encoded, ...]]:
    """The detections of each picture; see `DetectionsFile`.

    Raises:
        FileNotFoundError: without the file.
        ValueError: naming file and line.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: give the path of a detections file")
    pictures: dict[str, tuple[Encoded, ...]] = {}
    for place, row in read_rows(file):
        try:
            name, detections = row.get("picture"), row.get("detections")
            if not isinstance(name, str) or not isinstance(detections, list):
                raise ValueError(f"has the keys {', '.join(row) or 'none'}: give 'picture' and 'detections'")
            if name in pictures:
                raise ValueError(f"picture {name} is there twice: remove one of the rows")
            pictures[name] = tuple(map(_encoded, detections))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    if not pictures:
        raise ValueError(f"{file} holds no picture: make it again")
    bare = sum(one.mask is None and one.detection.score > THRESHOLD for found in pictures.values() for one in found)
    if bare:
        log.warning("%s: %d detections have no mask: colours are judged with the background", file, bare)
    return pictures


def _encoded(part: Any) -> Encoded:
    if not isinstance(part, dict):
        raise ValueError(f"a detection is {part!r}: give an object with class, box and score")
    name = RENAMED.get(part.get("class", ""), part.get("class"))
    if name not in CLASSES:
        raise ValueError(f"class {name!r} is none of COCO's: {class_remedy(str(name))}")
    box, score, mask = part.get("box"), _number(part.get("score")), part.get("mask")
    if not isinstance(box, list) or len(box) != 4 or None in map(_number, box):
        raise ValueError(f"box {box!r}: give [x0, y0, x1, y1] in pixels")
    x0, y0, x1, y1 = map(float, box)
    if x1 < x0 or y1 < y0:
        raise ValueError(f"box {box!r} ends before it begins: give [x0, y0, x1, y1], not a width and a height")
    if score is None or not 0 <= score <= 1:
        raise ValueError(f"score {part.get('score')!r}: give a number from 0 to 1")
    lengths = None if mask is None else run_lengths(mask)
    return Encoded(
        detection=Detection(class_name=name, box=(x0, y0, x1, y1), score=score),
        mask=lengths if score > THRESHOLD else None,
    )


def _number(value: Any) -> float | None:
    """The finite number that a JSON value is, None if it is something else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
