"""The committed weights: small enough, an autoencoder that keeps what the detector needs, an adapter that notices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from project.models.bagel import Bagel
from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.source import BagelCheckpoint
from project.models.transforms import normalise, to_uint8
from project.shapes.detector import detect
from project.shapes.grammar import REFLECT, THINK, describe
from project.shapes.mistakes import make_mistake, reflect
from project.shapes.renderer import render_all
from project.shapes.scenes import KINDS, sample_layout
from project.shapes.split import SPLITS, Split, pairs_of, sample_scene_of

FOLDER = Path(__file__).parents[2] / "data" / "shapes" / "umm"
REFLECTION = FOLDER.parent / "reflection"


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


def test_all_embedded_weights_are_below_10_mb() -> None:
    assert sum(file.stat().st_size for folder in (FOLDER, REFLECTION) for file in folder.iterdir()) < 10e6
    assert sum(file.stat().st_size for file in REFLECTION.iterdir()) < 2e6


def test_the_adapter_makes_true_reflections_likelier() -> None:
    """Reflections on exact pictures with one mistake, after the context that refinement reads."""
    rng = np.random.default_rng(7)
    scenes = [sample_scene_of(rng, KINDS[i % 4], "seen") for i in range(40)]
    layouts = [make_mistake(rng, s, sample_layout(rng, s), pairs_of("seen")) if i % 2 else sample_layout(rng, s)
               for i, s in enumerate(scenes)]  # fmt: skip
    pixels = normalise(torch.from_numpy(render_all(layouts)))

    def nats(model: Bagel) -> float:
        context = model.append_text(model.functional_context(40), [model.encode_text(THINK)] * 40)
        context = model.append_latents(context, model.encode_image(pixels), (4, 4))
        context = model.append_picture(context, list(pixels))
        context = model.append_text(context, [model.encode_text(f"{REFLECT} {describe(scene)}") for scene in scenes])
        ids = [model.encode_text(reflect(s, t)) for s, t in zip(scenes, layouts, strict=True)]
        _, text = model.text_log_probs(context, ids)
        return -text.log_prob_RT.sum(1).mean().item()

    with torch.no_grad():
        before, after = (
            nats(BagelCheckpoint(str(FOLDER), adapter=adapter).load()) for adapter in (None, str(REFLECTION))
        )
    assert after < before / 3, (before, after)
