"""Which detections count, and how much boxes overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from project.benchmarks.geneval.detections import Detection, kept, overlap
from project.benchmarks.geneval.items import item_of
from project.benchmarks.geneval.rules import evaluate
from tests.helpers.golden import parametrize_golden as pytest_generate_tests  # noqa: F401


def found(scores: Mapping[str, list[float]]) -> list[Detection]:
    """A detection of each score, ten pixels wide, ten from the one before."""
    return [
        Detection(class_name=name, box=(10.0 * n, 0.0, 10.0 * n + 9, 9.0), score=score)
        for name, values in scores.items()
        for n, score in enumerate(values)
    ]


def test_official_cases(golden_geneval_detection_filter: Mapping[str, Any]) -> None:
    case = golden_geneval_detection_filter
    detections = [
        Detection(class_name=name, box=tuple(row[:4]), score=row[4])
        for name, rows in case["raw_detections"].items()
        for row in rows
    ]
    item = item_of(case["metadata"], "00000")
    detected = kept(detections, item.counts, case["max_overlap"], case["max_objects"])
    rows = {name: [[*one.box, one.score] for one in group] for name, group in detected.items()}
    assert rows == case["expected"]["kept"]
    verdict = evaluate(item, detected, lambda group: [])
    assert (verdict.correct, verdict.reason) == (case["expected"]["correct"], case["expected"]["reason"])


def test_a_threshold_must_be_exceeded() -> None:
    detections = found({"dog": [0.3, 0.31, 0.9, 0.91], "cat": [0.3]})
    assert {name: [one.score for one in group] for name, group in kept(detections, False).items()} == {
        "dog": [0.91, 0.9, 0.31]
    }
    assert [one.score for one in kept(detections, True)["dog"]] == [0.91]


def test_of_equal_scores_the_later_comes_first() -> None:
    assert [one.box[0] for one in kept(found({"dog": [0.5, 0.7, 0.5]}), False)["dog"]] == [10.0, 20.0, 0.0]


def test_at_most_sixteen_of_each_class() -> None:
    detected = kept(found({"dog": [0.5] * 20, "cat": [0.4] * 3}), False)
    assert {name: len(group) for name, group in detected.items()} == {"dog": 16, "cat": 3}


def test_overlap_by_hand() -> None:
    """Corners are pixels: a box from 0 to 9 is ten pixels wide."""
    assert overlap((0, 0, 9, 9), (0, 0, 9, 9)) == 1
    assert overlap((0, 0, 9, 9), (5, 0, 14, 9)) == pytest.approx(50 / 150)
    assert overlap((0, 0, 9, 9), (10, 0, 19, 9)) == 0


def test_suppression_drops_at_the_bound_and_only_within_a_class() -> None:
    boxes = [(0.0, 0.0, 9.0, 9.0), (5.0, 0.0, 14.0, 9.0)]
    pair = [Detection(class_name="dog", box=box, score=score) for box, score in zip(boxes, (0.8, 0.9), strict=True)]
    bound = overlap(*boxes)
    assert len(kept(pair, False, max_overlap=bound + 1e-9)["dog"]) == 2
    assert [one.score for one in kept(pair, False, max_overlap=bound)["dog"]] == [0.9]
    other = Detection(class_name="cat", box=boxes[0], score=0.5)
    assert set(kept([*pair, other], False, max_overlap=bound)) == {"dog", "cat"}
