"""Colours by CLIP: what it is shown, and real CLIP classes on a tiny checkpoint with random weights, made here."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from project.benchmarks.geneval.colors import TEMPLATES, CLIPColors, cut_out
from project.benchmarks.geneval.detections import Detection
from project.benchmarks.geneval.items import COLORS
from project.models.clip import MEAN, STD, load_clip, prepare
from tests.helpers.tiny_geneval import write_tiny_clip, write_tiny_mask2former


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def shown(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_an_object_is_cut_out() -> None:
    image = shown()
    mask_HW = np.zeros((40, 60), dtype=bool)
    mask_HW[10:20, 5:15] = True
    cut = np.array(cut_out(image, Detection(class_name="dog", box=(4.0, 9.0, 16.0, 22.0), score=1.0, mask_HW=mask_HW)))
    assert cut.shape == (13, 12, 3)
    assert (cut[1:11, 1:11] == image[10:20, 5:15]).all()
    assert (cut[0] == 0x99).all() and (cut[11:] == 0x99).all() and (cut[:, 0] == 0x99).all()
    bare = cut_out(image, Detection(class_name="dog", box=(4.4, 9.6, 16.0, 22.0), score=1.0))
    assert (np.array(bare) == image[10:22, 4:16]).all()
    assert cut_out(image, Detection(class_name="dog", box=(4.0, 9.0, 4.2, 9.0), score=1.0)).size == (1, 1)


def test_pictures_are_prepared_as_clip_wants() -> None:
    """The shorter side becomes the input's, and the middle of the longer one stays."""
    stripes = np.zeros((40, 80, 3), dtype=np.uint8)
    stripes[:, 20:60] = 255
    prepared = prepare(Image.fromarray(stripes), 40)
    assert prepared.shape == (3, 40, 40)
    white = [(1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    assert prepared[:, 20, 20].tolist() == pytest.approx(white) and prepared[:, 20, 0].tolist() == pytest.approx(white)
    assert prepare(Image.new("RGB", (7, 3)), 32).shape == prepare(Image.new("RGB", (1, 50)), 32).shape == (3, 32, 32)


def test_pictures_are_scaled_bicubically() -> None:
    """A soft step overshoots on both sides: neither nearest nor bilinear pixels do."""
    step = np.full((8, 8, 3), 64, dtype=np.uint8)
    step[:, 4:] = 192
    levels = prepare(Image.fromarray(step), 16)[0, 8] * STD[0] + MEAN[0]
    assert levels.min() * 255 < 62 and levels.max() * 255 > 194


def test_colours_are_those_of_clip_asked_one_by_one(checkpoint: str) -> None:
    image = shown()
    boxes = [(0.0, 0.0, 20.0, 40.0), (10.0, 5.0, 60.0, 30.0), (30.0, 20.0, 45.0, 25.0)]
    found = [
        Detection(class_name=name, box=box, score=0.9, mask_HW=np.random.default_rng(n).random((40, 60)) < 0.7)
        for n, (name, box) in enumerate(zip(("dog", "traffic light", "dog"), boxes, strict=True))
    ]
    network = load_clip(checkpoint, torch.device("cpu"))
    expected = []
    for detection in found:
        seen = network.of_pictures([cut_out(image, detection)])[0]
        similarity = []
        for color in COLORS:
            texts = [template.format(color=color, name=detection.class_name) for template in TEMPLATES]
            mean = torch.stack([network.of_texts([text])[0] for text in texts]).mean(0)
            similarity.append(float(seen @ mean / mean.norm()))
        expected.append(COLORS[int(np.argmax(similarity))])
    assert CLIPColors(checkpoint, device="cpu").colors(image, found) == expected
    assert CLIPColors(checkpoint, device="cpu").colors(image, []) == []


def test_embeddings_are_those_of_transformers(checkpoint: str) -> None:
    """One network call with pictures and texts gives the same cosines, up to its own scale."""
    clip = load_clip(checkpoint, torch.device("cpu"))
    pictures, texts = [Image.fromarray(shown(n)) for n in range(2)], ["a red dog", "a photo of a blue object"]
    tokens = clip.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        output = clip.network(pixel_values=torch.stack([prepare(p, 32) for p in pictures]), **tokens)
    cosine = clip.of_pictures(pictures) @ clip.of_texts(texts).T
    torch.testing.assert_close(cosine, output.logits_per_image / clip.network.logit_scale.exp())


def test_random_weights_fail_the_self_test(checkpoint: str) -> None:
    with pytest.raises(ValueError, match=r"calls a plain \w+ picture \w+: its weights"):
        CLIPColors(checkpoint, device="cpu").preflight()


def test_the_self_test_passes_where_the_colours_are_right(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([["red"], ["blue"]])
    clip = CLIPColors(checkpoint, device="cpu")
    monkeypatch.setattr(clip, "colors", lambda image, found: next(said))
    clip.preflight()


def test_other_checkpoints_are_refused(tmp_path: Path, checkpoint: str) -> None:
    detector = write_tiny_mask2former(tmp_path / "detector")
    with pytest.raises(ValueError, match="is a mask2former model, not clip: take openai/clip-vit-large-patch14"):
        CLIPColors(detector).preflight()
    shutil.copytree(checkpoint, tmp_path / "part")
    weights = load_file(tmp_path / "part/model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "part/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks the weights visual_projection\.weight: take openai"):
        CLIPColors(str(tmp_path / "part")).preflight()
    with pytest.raises(FileNotFoundError, match="no CLIP folder"):
        CLIPColors(str(tmp_path / "nowhere")).preflight()
