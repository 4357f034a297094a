"""The committed checkpoint: small enough, and its autoencoder keeps what the detector needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from project.models.bagel.autoencoder import Autoencoder
from project.models.transforms import normalise, to_uint8
from project.shapes.detector import detect
from project.shapes.renderer import render_all
from project.shapes.scenes import KINDS, sample_layout
from project.shapes.split import SPLITS, Split, sample_scene_of

FOLDER = Path(__file__).parents[2] / "data" / "shapes" / "umm"


@pytest.mark.parametrize("split", SPLITS)
def test_round_trips_are_read_back(split: Split) -> None:
    rng = np.random.default_rng(99)
    scenes = [sample_scene_of(rng, KINDS[i % len(KINDS)], split) for i in range(500)]
    pictures = normalise(torch.from_numpy(render_all([sample_layout(rng, scene) for scene in scenes])))
    autoencoder = Autoencoder.from_directory(FOLDER)
    with torch.no_grad():
        decoded = autoencoder.decode(autoencoder.encode(pictures))
    accuracy = detect(to_uint8(decoded).numpy()).accuracy(scenes)
    assert accuracy >= 0.97, accuracy


def test_the_checkpoint_is_below_10_mb() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 10e6
