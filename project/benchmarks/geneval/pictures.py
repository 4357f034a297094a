"""GenEval's whole way for pictures: detector, thresholds, rules, colours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from project.benchmarks.geneval.colors import ColorClassifier
from project.benchmarks.geneval.detections import kept
from project.benchmarks.geneval.detector import Detector
from project.benchmarks.geneval.items import Item
from project.benchmarks.geneval.rules import evaluate
from project.benchmarks.geneval.summary import PictureRow, picture_name


def judge_pictures(
    images: Sequence[np.ndarray],
    items: Sequence[Item],
    samples: Sequence[int],
    detector: Detector,
    colors: ColorClassifier,
) -> list[PictureRow]:
    """The verdict on each picture.

    Args:
        images: uint8 [height, width, 3] each.
        items: prompt of each picture.
        samples: which of the prompt's pictures each is, from 0.
        detector: finds the objects.
        colors: names their colours, where a prompt asks for one.

    Raises:
        ValueError: unless there are as many items and samples as images; what the detector raises.
    """
    if not len(images) == len(items) == len(samples):
        raise ValueError(
            f"{len(images)} images, {len(items)} items and {len(samples)} samples: give one item and one number each"
        )
    found = detector.detect(images, [picture_name(item.id, n) for item, n in zip(items, samples, strict=True)])
    rows = []
    for image, item, sample, detections in zip(images, items, samples, found, strict=True):
        verdict = evaluate(item, kept(detections, item.counts), partial(colors.colors, image))
        rows.append(
            PictureRow(item=item.id, sample=sample, tag=item.tag, correct=verdict.correct, reason=verdict.reason)
        )
    return rows
