"""Drawing, editing and asking from Python, on the embedded checkpoint."""

from __future__ import annotations

import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from project.inference.generation import settings_for
from project.inference.pipeline import UnifiedPipeline
from project.models.base import Defaults
from project.samplers.guidance import Guidance
from project.shapes.examples import question
from project.shapes.renderer import render
from project.shapes.scenes import KINDS, Object, Scene, sample_layout
from project.shapes.split import sample_scene_of


@pytest.fixture(scope="module")
def pipe():
    return UnifiedPipeline.from_pretrained("data/shapes/umm")


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def levels(image):
    return np.asarray(image).astype(int)


def picture():
    scene = Scene(objects=(Object(colour="red", shape="circle"),))
    return Image.fromarray(render(sample_layout(np.random.default_rng(0), scene)))


PROMPTS = ["a red circle", "two blue squares", "a small green star above a black ring"]


@pytest.mark.parametrize("think", [False, True])
def test_an_image_does_not_depend_on_what_it_is_drawn_with(pipe, think):
    together = pipe(PROMPTS, think=think, generator=seeded(3, 4, 5), num_steps=4)
    alone = pipe(PROMPTS[1], think=think, generator=seeded(4)[0], num_steps=4)
    assert np.abs(levels(together.images[1]) - levels(alone.images[0])).max() <= 1
    assert together.texts[1] == alone.texts[0]
    assert (together.texts[0] is None) != think


def test_edits_of_different_sizes_in_one_call(pipe):
    sources = [picture(), picture().resize((64, 32)), picture()]
    edited = pipe(PROMPTS, sources, generator=seeded(3, 4, 5), num_steps=3)
    assert [image.size for image in edited.images] == [(64, 64), (64, 32), (64, 64)]
    alone = pipe(PROMPTS[2], sources[2], generator=seeded(5)[0], num_steps=3)
    assert np.abs(levels(edited.images[2]) - levels(alone.images[0])).max() <= 1


def test_an_edit_depends_on_its_image(pipe):
    one, other = (
        pipe("a red circle", image, generator=seeded(0)[0], num_steps=3, guidance=Guidance(text=2.0)).images[0]
        for image in (picture(), Image.new("RGB", (64, 64), "white"))
    )
    assert np.abs(levels(one) - levels(other)).max() > 20


def test_it_answers_about_the_picture(pipe):
    """The embedded checkpoint is right in two of three: a coin (0.5) would hardly be in 0.6 of 200."""
    rng = np.random.default_rng(1)
    examples = [question(rng, sample_scene_of(rng, KINDS[n % len(KINDS)], "seen")) for n in range(200)]
    shown = [Image.fromarray(example.blocks[0].pixels) for example in examples]
    answers = pipe.ask([example.blocks[1].text for example in examples], shown)
    assert set(answers) == {"yes", "no"}
    assert np.mean([given == e.blocks[2].text for given, e in zip(answers, examples, strict=True)]) > 0.6


def test_wrong_numbers_and_sizes_are_refused(pipe):
    with pytest.raises(ValueError, match="2 images for 3 prompts"):
        pipe(PROMPTS, [picture()] * 2)
    with pytest.raises(ValueError, match="leave out height"):
        pipe("a red circle", picture(), height=64)
    with pytest.raises(ValueError, match="multiples of 16"):
        pipe("a red circle", height=60)
    with pytest.raises(ValueError, match="position table ends"):
        pipe("a red circle", height=16 * 4096)
    with pytest.raises(ValueError, match="latents of shape"):
        pipe("a red circle", latents=[torch.zeros(3, 4)])


def test_a_path_is_no_picture(pipe):
    with pytest.raises(ValueError, match=r"'cat\.png' is no picture"):
        pipe("a red circle", "cat.png")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": -1}, "batch_size = -1: give at least 1"),
        ({"max_tokens": 0}, "max_tokens = 0: give at least 1"),
        ({"top_p": 2.0}, "top_p = 2.0"),
        ({"temperature": -1.0}, "temperature = -1.0: give 0"),
        ({"temperature": float("nan")}, "temperature = nan"),
    ],
)
def test_numbers_that_nothing_can_be_drawn_with(changes, message):
    with pytest.raises(ValueError, match=message):
        settings_for(types.SimpleNamespace(defaults=Defaults()), **changes)


def test_temperature_and_top_p_shape_the_reasoning(pipe, monkeypatch):
    """0 of either is greedy, whatever the noise; the checkpoint's own if nothing is said."""

    def texts(seed, **chosen):
        return pipe(PROMPTS, think=True, generator=seeded(seed, seed + 1, seed + 2), num_steps=2, **chosen).texts

    greedy = texts(3, temperature=0.0)
    assert greedy == texts(7, temperature=0.0) == texts(7, top_p=0.0)
    hot = texts(3, temperature=30.0, top_p=1.0)
    assert greedy != hot != texts(7, temperature=30.0, top_p=1.0)
    for temperature, expected in ((0.0, greedy), (30.0, hot)):
        monkeypatch.setattr(pipe.model, "defaults", replace(pipe.model.defaults, temperature=temperature))
        assert texts(3, top_p=1.0) == expected
