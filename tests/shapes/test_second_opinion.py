from __future__ import annotations

import numpy as np
import pytest

from project.shapes.degradation import add_noise
from project.shapes.renderer import render, render_all
from project.shapes.scenes import KINDS, Layout, Object, Placed, Scene, sample_layout
from project.shapes.second_opinion import LARGEST_DISTANCE, cell_distances, read, satisfies
from project.shapes.split import sample_scene_of


def test_exact_pictures_of_every_object_are_recognised(every_object):
    some = every_object[::5]
    scenes = [Scene(objects=(layout.things[0][1],)) for layout in some]
    assert satisfies(render_all(some), scenes).all()


def test_it_agrees_with_the_layouts_that_were_drawn():
    rng = np.random.default_rng(0)
    scenes = [sample_scene_of(rng, kind, "seen") for kind in KINDS for _ in range(40)]
    layouts = [sample_layout(rng, scene) for scene in scenes]
    others = scenes[1:] + scenes[:1]
    pictures = np.stack([add_noise(rng, picture, 8.0) for picture in render_all(layouts)])
    assert satisfies(pictures, scenes).all()
    truth = [scene.satisfied_by(layout) for scene, layout in zip(others, layouts, strict=True)]
    assert satisfies(pictures, others).tolist() == truth


def test_layouts_are_read_back():
    rng = np.random.default_rng(1)
    layouts = [sample_layout(rng, sample_scene_of(rng, kind, "seen")) for kind in KINDS for _ in range(10)]
    pictures = np.stack([add_noise(rng, picture, 8.0) for picture in render_all(layouts)])
    found = read(pictures)
    assert [layout and layout.things for layout in found] == [layout.things for layout in layouts]
    pictures[0, :16, :16] = 0
    assert read(pictures[:2])[0] is None and read(pictures[:2])[1] == found[1]


def test_distances_by_hand():
    picture = np.full((1, 64, 64, 3), 250, dtype=np.uint8)
    picture[0, 40, 40] = 0  # One pixel of cell 3, 250 levels off in all channels: sqrt(250^2 / 1024).
    assert cell_distances(picture)[0, :, 0] == pytest.approx([0, 0, 0, 250 / 32])


def test_what_is_far_from_every_rendering_fails():
    red = Object(colour="red", shape="circle", size="large")
    scene = Scene(objects=(red,))
    right = render(Layout(cells=(Placed(thing=red), None, None, None)))
    half = right.copy()
    half[:, :16] = 250
    assert satisfies(np.stack([right, half]), [scene, scene]).tolist() == [True, False]
    assert cell_distances(half[None])[0, 0].min() > LARGEST_DISTANCE


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one scene per picture"):
        satisfies(np.zeros((2, 64, 64, 3), dtype=np.uint8), [])
