"""Detections that another program made."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.benchmarks.geneval.detections_file import DetectionsFile

MASK = {"size": [2, 3], "counts": [2, 3, 1]}
DOG = {"class": "dog", "box": [1, 0, 3, 2], "score": 0.95, "mask": MASK}
PICTURE = np.zeros((2, 3, 3), dtype=np.uint8)


def write(folder: Path, *rows: Any) -> str:
    file = folder / "detections.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_what_the_file_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remote = {"class": "remote", "box": [0, 0, 1, 1.5], "score": 0.2}
    file = write(
        tmp_path, {"picture": "00000/0", "detections": [DOG, remote]}, {"picture": "00000/1", "detections": []}
    )
    detector = DetectionsFile(file, "mmdet mask2former_swin-s")
    with caplog.at_level(logging.WARNING):
        detector.preflight()
    assert not caplog.messages
    none, (dog, other) = detector.detect([PICTURE, PICTURE], ["00000/1", "00000/0"])
    assert none == ()
    assert (dog.class_name, dog.box, dog.score) == ("dog", (1.0, 0.0, 3.0, 2.0), 0.95)
    assert dog.mask_HW is not None and dog.mask_HW.tolist() == [[False, True, True], [False, True, False]]
    assert other.class_name == "tv remote" and other.mask_HW is None
    assert detector.label == "geneval (mmdet mask2former_swin-s, from a file)"


def test_missing_masks_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = {name: value for name, value in DOG.items() if name != "mask"}
    file = write(tmp_path, {"picture": "00000/0", "detections": [DOG, bare]})
    with caplog.at_level(logging.WARNING):
        DetectionsFile(file, "mmdet").preflight()
    assert "1 detections have no mask" in caplog.text


def test_other_pictures(tmp_path: Path) -> None:
    detector = DetectionsFile(write(tmp_path, {"picture": "00000/0", "detections": [DOG]}), "mmdet")
    with pytest.raises(ValueError, match="no row of picture 00000/3; it has 1 pictures, such as 00000/0"):
        detector.detect([PICTURE], ["00000/3"])
    with pytest.raises(ValueError, match="a mask of picture 00000/0 is 2x3, the picture 4x3"):
        detector.detect([np.zeros((4, 3, 3), dtype=np.uint8)], ["00000/0"])
    with pytest.raises(ValueError, match="1 pictures and 2 names"):
        detector.detect([PICTURE], ["00000/0", "00000/1"])


@pytest.mark.parametrize(
    "row, message",
    [
        ({"name": "00000/0"}, "has the keys name: give 'picture' and 'detections'"),
        ({"picture": "a", "detections": []}, "picture a is there twice"),
        ({"picture": "b", "detections": ["dog"]}, "a detection is 'dog'"),
        ({"picture": "b", "detections": [DOG | {"class": "dgo"}]}, "did you mean 'dog'"),
        ({"picture": "b", "detections": [DOG | {"box": [1, 2, 3]}]}, "give [x0, y0, x1, y1]"),
        ({"picture": "b", "detections": [DOG | {"box": [5, 0, 3, 2]}]}, "not a width and a height"),
        ({"picture": "b", "detections": [DOG | {"score": 95}]}, "score 95: give a number from 0 to 1"),
        ({"picture": "b", "detections": [DOG | {"score": float("nan")}]}, "score nan"),
        ({"picture": "b", "detections": [DOG | {"mask": {"size": [2, 2], "counts": [9]}}]}, "do not fill its size"),
    ],
)
def test_what_is_no_detection(tmp_path: Path, row: Any, message: str) -> None:
    file = write(tmp_path, {"picture": "a", "detections": []}, row)
    with pytest.raises(ValueError) as caught:
        DetectionsFile(file, "mmdet").preflight()
    assert f"{file}:2: " in str(caught.value) and message in str(caught.value)


def test_no_file_no_rows_no_maker(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        DetectionsFile(str(tmp_path / "none.jsonl"), "mmdet").preflight()
    with pytest.raises(ValueError, match="holds no picture"):
        DetectionsFile(write(tmp_path), "mmdet").preflight()
    with pytest.raises(ValueError, match="detector is empty"):
        DetectionsFile("x", " ")
