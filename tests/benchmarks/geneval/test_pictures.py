"""The whole way: real Mask2Former and CLIP classes on tiny checkpoints, then the rules on detections that are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from project.benchmarks.geneval.colors import CLIPColors
from project.benchmarks.geneval.detections import COUNTING_THRESHOLD, THRESHOLD, kept
from project.benchmarks.geneval.detections_file import DetectionsFile
from project.benchmarks.geneval.items import Exclude, Include, Item
from project.benchmarks.geneval.mask2former import Mask2FormerDetector
from project.benchmarks.geneval.pictures import judge_pictures
from project.benchmarks.geneval.summary import score
from tests.helpers.tiny_geneval import write_tiny_clip, write_tiny_mask2former


def item(id: str, tag: str, *include: Include, exclude: tuple[Exclude, ...] = ()) -> Item:
    return Item(id=id, tag=tag, prompt="p", include=include, exclude=exclude)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mask2FormerDetector, CLIPColors]:
    detector = write_tiny_mask2former(tmp_path_factory.mktemp("mask2former"), sure=200.0)
    return (
        Mask2FormerDetector(detector, device="cpu", short_side=64, long_side=128),
        CLIPColors(write_tiny_clip(tmp_path_factory.mktemp("clip")), device="cpu"),
    )


def test_from_pixels_to_figures(networks: tuple[Mask2FormerDetector, CLIPColors]) -> None:
    """Prompts are made of what the networks see, so that each of them is right, and each change of one is wrong."""
    detector, clip = networks
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    (found,) = detector.detect([image], ["00000/0"])
    detected = kept(found, counting=False)
    assert all(one.score > THRESHOLD for group in detected.values() for one in group)
    name, group = next(iter(detected.items()))
    (color,) = clip.colors(image, group[:1])
    other = "red" if color != "red" else "blue"
    absent = next(name for name in ("zebra", "toaster", "skis", "vase") if name not in detected)
    sure = [one for one in found if one.class_name == name and one.score > COUNTING_THRESHOLD]
    assert len(sure) < len(group), "the threshold of counting must matter here"
    items = [
        item("00000", "single_object", Include(class_name=name, count=len(group))),
        item("00001", "single_object", Include(class_name=absent, count=1)),
        item("00002", "colors", Include(class_name=name, count=1, color=color)),
        item("00003", "colors", Include(class_name=name, count=1, color=other)),
        item("00004", "counting", Include(class_name=name, count=len(group))),
    ]
    rows = judge_pictures([image] * 5, items, [0] * 5, detector, clip)
    assert [row.correct for row in rows] == [True, False, True, False, False]
    assert rows[1].reason == f"expected {absent}>=1, found 0"
    assert rows[3].reason == f"expected {other} {name}>=1, found 0 {other}; and 1 {color}"
    assert rows[4].reason == f"expected {name}>={len(group)}, found {len(sure)}"
    scores = score(rows, items, "strict", samples=1)
    assert scores.overall == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_the_rules_on_known_detections(
    tmp_path: Path, networks: tuple[Mask2FormerDetector, CLIPColors], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two dogs, and a cat right of the first; the second dog is not sure enough to be counted."""
    file = tmp_path / "detections.jsonl"
    known = {"dog": (0, 0.95), "cat": (40, 0.4)}, {"dog": (80, 0.8)}
    found = [{"class": k, "box": [x, 0, x + 9, 9], "score": s} for some in known for k, (x, s) in some.items()]
    rows = [{"picture": "00000/1", "detections": []}, {"picture": "00000/0", "detections": found}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    detector = DetectionsFile(str(file), "known")
    asked: list[int] = []

    def colors(image: np.ndarray, found: tuple[object, ...]) -> list[str]:
        asked.append(int(image[0, 0, 0]))
        return ["red"] * len(found)

    monkeypatch.setattr(networks[1], "colors", colors)
    dog = Include(class_name="dog", count=1)
    prompts = {
        "two": (item("00000", "two_object", dog, Include(class_name="cat", count=1)), True),
        "counted": (item("00000", "counting", dog, exclude=(Exclude(class_name="dog", count=2),)), True),
        "too few": (item("00000", "counting", Include(class_name="dog", count=2)), False),
        "red": (item("00000", "colors", Include(class_name="dog", count=2, color="red")), True),
        "right of": (item("00000", "position", dog, Include(class_name="cat", count=1, relation="right of")), True),
        "left of": (item("00000", "position", dog, Include(class_name="cat", count=1, relation="left of")), False),
    }
    pixels = np.full((10, 90, 3), 7, dtype=np.uint8)
    for name, (asked_for, right) in prompts.items():
        (row,) = judge_pictures([pixels], [asked_for], [0], detector, networks[1])
        assert row.correct == right, name
        assert row.name == "00000/0" and row.tag == asked_for.tag
    assert asked == [7], "colours are asked of the picture at hand, and only where they matter"
    nothing, some = judge_pictures([pixels] * 2, [prompts["two"][0]] * 2, [1, 0], detector, networks[1])
    assert nothing.reason == "expected dog>=1, found 0\nexpected cat>=1, found 0" and some.correct
    with pytest.raises(ValueError, match="1 images, 1 items and 2 samples"):
        judge_pictures([pixels], [prompts["two"][0]], [0, 1], detector, networks[1])
