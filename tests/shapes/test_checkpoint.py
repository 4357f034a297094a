"""The committed weights: small enough, and able to do what their READMEs say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from project.judges.unified import UnifiedJudge
from project.models.bagel import Bagel
from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.source import BagelCheckpoint
from project.models.reading import Reading, read
from project.models.transforms import normalise, to_uint8
from project.samplers.guidance import Guidance
from project.samplers.sampler import Sampler
from project.samplers.schedule import Schedule
from project.shapes.detector import detect
from project.shapes.editing import EDIT_KINDS, changed, kept, rendered_source, sample_edit
from project.shapes.grammar import REFLECT, THINK, describe
from project.shapes.mistakes import reflect
from project.shapes.new_vision import NewVision
from project.shapes.own_pictures import OwnPictures
from project.shapes.probes import shapes_probes
from project.shapes.renderer import render_all
from project.shapes.scenes import KINDS, sample_layout
from project.shapes.split import SPLITS, Split, sample_scene_of
from project.tasks.base import Rollout
from project.tasks.editing import Editing
from project.tasks.reasoning_t2i import ReasoningT2I
from project.trajectory import Prompt, SampleKey

FOLDER = Path(__file__).parents[2] / "data" / "shapes" / "umm"
COMPLETE = FOLDER.parent / "complete"


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


@pytest.mark.parametrize(("folder", "limit"), [("umm", 8e6), ("complete", 9e6), ("judge", 4e6)])
def test_embedded_weights_are_small(folder: str, limit: float) -> None:
    assert 0 < sum(file.stat().st_size for file in (FOLDER.parent / folder).iterdir()) < limit


def test_a_new_vision_tower_leaves_the_rest_as_it_was() -> None:
    known, new = BagelCheckpoint(str(FOLDER)).load(), NewVision(str(FOLDER), vision_patch_size=32).load()
    kept = {n: w for n, w in known.state_dict().items() if not n.startswith(("vit_model.", "connector."))}
    assert all(torch.equal(new.state_dict()[name], weight) for name, weight in kept.items())
    assert new.config.vision.patch_size == 32 and known.config.vision.patch_size == 16
    logits = []
    with torch.no_grad():
        for model in (known.eval(), new.eval()):
            seen = read(model, [Reading(text="a red circle")], lambda room, model=model: model.static_context(1, room))
            logits.append(model.first_token_log_probs(seen.main.select(seen.row_N, room=1)))
    assert torch.equal(*logits)


def test_the_complete_model_finds_true_reflections_on_own_pictures_likely(tmp_path: Path) -> None:
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
        before, after = (nats(BagelCheckpoint(str(folder)).load()) for folder in (FOLDER, COMPLETE))
    assert after < before / 3, (before, after)


def test_the_judge_that_is_a_model_knows_what_is_there() -> None:
    judge = UnifiedJudge(BagelCheckpoint(str(FOLDER.parent / "judge")), template="plain", batch_size=128)
    judge.preflight()
    probes = shapes_probes(240, seed=7)
    answers = judge.answer([p.image for p in probes], [[p.question] for p in probes], [p.prompt for p in probes])
    right = {
        tag: np.mean([(a > 0.5) == p.truth for p, (a,) in zip(probes, answers, strict=True) if p.question.tag == tag])
        for tag in ("Existence", "Attribute", "Count", "Coherence", "Geometry")
    }
    assert min(right["Existence"], right["Attribute"], right["Count"]) > 0.95, right
    assert min(right["Coherence"], right["Geometry"]) > 0.75, right


def test_the_complete_model_edits_what_it_was_shown() -> None:
    rng = np.random.default_rng(7)
    edits = [sample_edit(rng, EDIT_KINDS[n % len(EDIT_KINDS)], "seen") for n in range(32)]
    prompts = [
        Prompt(id=f"edit-{n}", text=edit.instruction, columns={"layout": edit.source.to_dict()})
        for n, edit in enumerate(edits)
    ]
    task = Editing(
        64, 64, max_tokens=16, temperature=0.0, guidance=Guidance(text=2.5, interval=(0.0, 1.0)), source=rendered_source
    )
    (group,) = task.rollout(
        Rollout(
            model=BagelCheckpoint(str(COMPLETE)).load().eval(),
            prompts=prompts,
            keys=[SampleKey(seed=0, update=0, prompt=prompt.id) for prompt in prompts],
            sampler=Sampler(schedule=Schedule(11)),
            training=False,
        )
    )
    layouts = detect(np.stack([t.image.pixels_HWC.numpy() for t in group.trajectories])).layouts()
    pairs = zip(edits, layouts, strict=True)
    right = [shown is not None and changed(e.change, shown) and kept(e.change, e.source, shown) for e, shown in pairs]
    assert np.mean(right) > 0.7, "0.93 of the evaluation prompts are right"
