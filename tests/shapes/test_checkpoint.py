"""The committed weights: small enough, an autoencoder that keeps what the detector needs, an adapter that notices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from project.models.bagel import Bagel
from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.source import BagelCheckpoint
from project.models.reading import Reading, read
from project.models.transforms import normalise, to_uint8
from project.samplers.guidance import Guidance
from project.samplers.schedule import Schedule
from project.shapes.detector import detect
from project.shapes.grammar import REFLECT, THINK, describe
from project.shapes.mistakes import reflect
from project.shapes.own_pictures import OwnPictures
from project.shapes.renderer import render_all
from project.shapes.scenes import KINDS, sample_layout
from project.shapes.split import SPLITS, Split, sample_scene_of
from project.shapes.umm import NewVision
from project.tasks.reasoning_t2i import ReasoningT2I

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


@pytest.mark.parametrize(("folder", "limit"), [("umm", 8e6), ("complete", 9e6), ("judge", 4e6), ("reflection", 2e6)])
def test_embedded_weights_are_small(folder: str, limit: float) -> None:
    assert 0 < sum(file.stat().st_size for file in (FOLDER.parent / folder).iterdir()) < limit


def test_a_new_vision_tower_leaves_the_rest_as_it_was() -> None:
    known, new = BagelCheckpoint(str(FOLDER)).load(), NewVision(str(FOLDER), vision_patch_size=32).load()
    kept = {n: w for n, w in known.state_dict().items() if not n.startswith(("vit_model.", "connector."))}
    assert all(torch.equal(new.state_dict()[name], weight) for name, weight in kept.items())
    assert new.config.vision.patch_size == 32 and known.config.vision.patch_size == 16
    with torch.no_grad():
        logits = [
            model.first_token_log_probs(
                read(model, [Reading(text="a red circle")], lambda room, m=model: m.static_context(1, room)).main
            )
            for model in (known.eval(), new.eval())
        ]
    assert torch.equal(*logits)


def test_the_adapter_makes_true_reflections_on_own_pictures_likelier(tmp_path: Path) -> None:
    """After the context that refinement reads, on pictures that the model draws here for numbers of things."""
    drawing = OwnPictures(
        BagelCheckpoint(str(FOLDER)),
        ReasoningT2I(64, 64, max_tokens=16, guidance=Guidance(text=2.5, interval=(0.0, 1.0))),
        Schedule(11),
        parts=1,
        part_size=64,
        kinds={"count": 1.0},
    )
    drawing.draw(tmp_path, seed=99)
    pool = drawing.read(tmp_path)
    pictures = [*pool.right, *pool.wrong]
    pixels = normalise(torch.from_numpy(np.stack([own.pixels for own in pictures])))

    def nats(model: Bagel) -> float:
        context = model.append_text(model.functional_context(len(pool)), [model.encode_text(THINK)] * len(pool))
        context = model.append_latents(context, model.encode_image(pixels), (4, 4))
        context = model.append_picture(context, list(pixels))
        prompts = [model.encode_text(f"{REFLECT} {describe(own.scene)}") for own in pictures]
        ids = [model.encode_text(reflect(own.scene, own.layout)) for own in pictures]
        _, text = model.text_log_probs(model.append_text(context, prompts), ids)
        return -text.log_prob_RT.sum(1).mean().item()

    with torch.no_grad():
        before, after = (
            nats(BagelCheckpoint(str(FOLDER), adapter=adapter).load()) for adapter in (None, str(REFLECTION))
        )
    assert after < before / 3, (before, after)
