"""The detector: real Mask2Former classes on a tiny checkpoint with random weights, made here."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from project.benchmarks.geneval.detections import Detection
from project.benchmarks.geneval.detector import KNOWN_BOX, Detector, known_picture, self_test
from project.benchmarks.geneval.instances import instances
from project.benchmarks.geneval.items import CLASSES
from project.benchmarks.geneval.mask2former import Mask2FormerDetector, load_detector, prepare
from tests.helpers.tiny_geneval import write_tiny_clip, write_tiny_mask2former


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_mask2former(tmp_path_factory.mktemp("mask2former"))


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((48, 80), (48, 80), (70, 40))]


def detector(checkpoint: str, **more: float) -> Mask2FormerDetector:
    return Mask2FormerDetector(checkpoint, device="cpu", short_side=64, long_side=128, **more)  # type: ignore[arg-type]


def test_pictures_are_prepared_as_mmdet_does() -> None:
    """Sides 480x640 become 800x1067 and are filled up; 300x900 is bounded by the longer side."""
    flat = np.full((480, 640, 3), (255, 0, 127), dtype=np.uint8)
    made = prepare(flat, 800, 1333)
    assert made.resized == (800, 1067) and made.pixels_3HW.shape == (3, 800, 1088)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (127 / 255 - 0.406) / 0.225]
    assert made.pixels_3HW[:, 799, 1066].tolist() == pytest.approx(expected, rel=1e-5)
    assert not made.pixels_3HW[:, :, 1067:].any()
    assert prepare(np.zeros((300, 900, 3), dtype=np.uint8), 800, 1333).resized == (444, 1333)
    assert prepare(np.zeros((1024, 1024, 3), dtype=np.uint8), 800, 1333).resized == (800, 800)


def test_pictures_are_scaled_bilinearly() -> None:
    """A step from 0 to 255, twice as wide: the pixels between are a quarter and three quarters of the way."""
    step = np.zeros((2, 2, 3), dtype=np.uint8)
    step[:, 1] = 255
    row = prepare(step, 4, 4).pixels_3HW[0, 0, :4] * 0.229 + 0.485
    assert (row * 255).round().tolist() == [0, 64, 191, 255]


def test_detections_are_those_of_the_network(checkpoint: str, pictures: list[np.ndarray]) -> None:
    (found,) = detector(checkpoint, max_per_image=30, minimum_score=0.0).detect(pictures[2:], ["00000/0"])
    prepared = prepare(pictures[2], 64, 128)
    assert prepared.resized == (112, 64) and prepared.pixels_3HW.shape == (3, 128, 64)
    with torch.inference_mode():
        output = load_detector(checkpoint, torch.device("cpu"))(pixel_values=prepared.pixels_3HW[None])
    assert output.class_queries_logits.shape == (1, 12, 81)
    expected = instances(
        output.class_queries_logits[0], output.masks_queries_logits[0], (128, 64), (112, 64), (70, 40), 30
    )
    assert len(found) == len(expected.score_N) > 10
    assert [one.score for one in found] == pytest.approx(expected.score_N.tolist(), rel=1e-5)
    assert [one.class_name for one in found] == [CLASSES[label] for label in expected.label_N]
    for one, mask_HW, box in zip(found, expected.mask_NHW, expected.box_N4, strict=True):
        assert one.mask_HW is not None and one.mask_HW.shape == (70, 40)
        assert (one.mask_HW == mask_HW.numpy()).all() and list(one.box) == box.tolist()


def test_pictures_of_one_size_go_together_and_change_nothing(checkpoint: str, pictures: list[np.ndarray]) -> None:
    names = ["00000/0", "00000/1", "00000/2"]
    alone = detector(checkpoint).detect(pictures, names)
    together = detector(checkpoint, batch_size=8).detect(pictures, names)
    assert [len(found) for found in together] == [len(found) for found in alone] and all(map(len, alone))
    for a, b in zip(alone, together, strict=True):
        assert [one.class_name for one in a] == [one.class_name for one in b]
        assert [one.score for one in a] == pytest.approx([one.score for one in b], rel=1e-3)
    assert all(one.score > 0.3 for found in alone for one in found)
    with pytest.raises(ValueError, match="3 pictures and 1 names"):
        detector(checkpoint).detect(pictures, names[:1])


def test_weights_are_loaded_without_scipy(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    network = load_detector(checkpoint, torch.device("cpu"))
    assert not network.training and not any(weight.requires_grad for weight in network.parameters())


def test_a_checkpoint_without_its_classes_is_refused_and_moves_no_randomness(tmp_path: Path, checkpoint: str) -> None:
    """What is missing would be drawn at random."""
    shutil.copytree(checkpoint, tmp_path / "part")
    weights = load_file(tmp_path / "part/model.safetensors")
    del weights["class_predictor.weight"]
    save_file(weights, tmp_path / "part/model.safetensors", metadata={"format": "pt"})
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"lacks the weights class_predictor\.weight: take facebook"):
        Mask2FormerDetector(str(tmp_path / "part")).preflight()
    assert (torch.get_rng_state() == before).all()


def test_random_weights_fail_the_self_test(checkpoint: str) -> None:
    with pytest.raises(ValueError, match=r"geneval-hf does not see the one person .* it sees \w+.* 0\.\d\d at"):
        detector(checkpoint).preflight()


class Told(Detector):
    """Finds what it was told."""

    def __init__(self, *found: Detection) -> None:
        self.found = found

    @property
    def label(self) -> str:
        return "told"

    def preflight(self) -> None:
        self_test(self)

    def detect(self, images, names):  # type: ignore[no-untyped-def]
        assert [image.shape for image in images] == [(600, 512, 3)]
        return [self.found]


def person(score: float = 0.99, box: tuple[float, float, float, float] = KNOWN_BOX) -> Detection:
    return Detection(class_name="person", box=box, score=score)


def test_the_self_test_wants_one_person_where_it_is() -> None:
    assert known_picture().mean() > 50
    tie = Detection(class_name="tie", box=(200.0, 400.0, 300.0, 520.0), score=0.95)
    self_test(Told(tie, person(), person(0.5, (0.0, 0.0, 99.0, 99.0))))
    for wrong in ([tie], [person(0.9)], [person(), person(0.95)], [person(box=(0.0, 0.0, 300.0, 300.0))]):
        with pytest.raises(ValueError, match="told does not see the one person"):
            self_test(Told(*wrong))


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    clip = write_tiny_clip(tmp_path / "clip")
    with pytest.raises(ValueError, match="is a clip model, not mask2former: take facebook/mask2former-swin-small"):
        Mask2FormerDetector(clip).preflight()
    panoptic = write_tiny_mask2former(tmp_path / "panoptic", classes=133)
    with pytest.raises(ValueError, match="has 133 classes, not COCO's 80"):
        Mask2FormerDetector(panoptic).preflight()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text(json.dumps({"model_type": "no such"}))
    with pytest.raises(ValueError, match="no model that transformers knows"):
        Mask2FormerDetector(str(tmp_path / "empty")).preflight()
    with pytest.raises(FileNotFoundError, match="no detector folder"):
        Mask2FormerDetector(str(tmp_path / "nowhere")).preflight()


@pytest.mark.parametrize(
    "wrong", [{"short_side": 0}, {"long_side": 10}, {"max_per_image": 0}, {"batch_size": 0}, {"minimum_score": 1.5}]
)
def test_arguments_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Mask2FormerDetector("x", **wrong)  # type: ignore[arg-type]
