"""The pool of pictures that a model drew, and what is learned on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from project.models.bagel.source import BagelCheckpoint
from project.samplers.guidance import Guidance
from project.samplers.schedule import Schedule
from project.shapes.detector import detect
from project.shapes.examples import other_demand, reflect_on_own, sample_example
from project.shapes.grammar import parse
from project.shapes.mistakes import make_mistake, reflect
from project.shapes.own_pictures import RIGHT_RATE, OwnPictures, Pool, locate, own_pictures
from project.shapes.renderer import render
from project.shapes.scenes import KINDS, Layout, Scene, sample_layout
from project.shapes.split import pairs_of, sample_scene_of, scene_split
from project.tasks.reasoning_t2i import ReasoningT2I


def scenes_and_layouts(number: int, seed: int = 0) -> tuple[list[Scene], list[Layout]]:
    """Every other layout has a mistake."""
    rng = np.random.default_rng(seed)
    scenes = [sample_scene_of(rng, KINDS[n % len(KINDS)], "seen") for n in range(number)]
    layouts = [sample_layout(rng, scene) for scene in scenes]
    return scenes, [
        make_mistake(rng, scene, layout, pairs_of("seen")) if n % 2 else layout
        for n, (scene, layout) in enumerate(zip(scenes, layouts, strict=True))
    ]


@pytest.fixture(scope="module")
def pool() -> Pool:
    scenes, layouts = scenes_and_layouts(100)
    return Pool(own_pictures(scenes, np.stack([render(layout) for layout in layouts])))


def test_exact_pictures_are_located_exactly():
    _, layouts = scenes_and_layouts(60)
    for layout in layouts:
        moved = tuple(placed and replace(placed, dx=0, dy=0) for placed in layout.cells)
        assert locate(render(layout), Layout(cells=moved)) == layout


def test_what_cannot_be_read_is_left_out():
    scenes, layouts = scenes_and_layouts(2)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert [one.layout for one in own_pictures(scenes, np.stack([render(layouts[0]), noise]))] == layouts[:1]


def test_right_and_wrong_pictures_come_at_their_rates(pool: Pool):
    assert (len(pool.right), len(pool.wrong), len(pool)) == (50, 50, 100)
    rng = np.random.default_rng(0)
    assert np.mean([pool.sample(rng).right for _ in range(3000)]) == pytest.approx(RIGHT_RATE, abs=0.03)


def test_a_pool_needs_both(pool: Pool):
    with pytest.raises(ValueError, match="50 right and 0 wrong"):
        Pool(pool.right)


def test_reflections_on_own_pictures_are_true_and_the_correction_is_right(pool: Pool):
    rng = np.random.default_rng(1)
    indirect, changed, faultless = 0, 0, 0
    known = {one.pixels.tobytes(): one for one in (*pool.right, *pool.wrong)}
    for _ in range(300):
        _, clean, seen, prompt, reflection, picture = reflect_on_own(rng, pool, indirect=0.3).blocks
        own = known[clean.pixels.tobytes()]
        assert seen.pixels is clean.pixels and reflection.loss and picture.role == "drawn"
        text = prompt.text.removeprefix("reflect ")
        scene = parse(text, indirect=True)
        assert scene is not None and scene_split(scene) == "seen"
        assert reflection.text == reflect(scene, own.layout, placed=True)
        assert detect(picture.pixels[None]).satisfies([scene])[0]
        indirect += parse(text) is None
        changed += scene != own.scene
        faultless += "nothing is wrong" in reflection.text
        if scene.satisfied_by(own.layout):
            assert np.array_equal(picture.pixels, clean.pixels)
    assert 0.2 < indirect / 300 < 0.4
    assert 0.05 < changed / 300 < 0.25
    assert 0.25 < faultless / 300 < 0.55


@pytest.mark.parametrize("met", [False, True])
def test_another_demand_is_met_or_not_and_keeps_all_else(met: bool):
    scenes, layouts = scenes_and_layouts(200, seed=2)
    rng = np.random.default_rng(2)
    found = {kind: [0, 0] for kind in KINDS}
    for scene, layout in zip(scenes, layouts, strict=True):
        other = other_demand(rng, scene, layout, met=met)
        assert other.kind == scene.kind and scene_split(other) == "seen"
        assert [o.shape for o in other.objects] == [o.shape for o in scene.objects]
        assert {o.colour for o in other.objects} == {o.colour for o in scene.objects}
        found[scene.kind][other.satisfied_by(layout)] += 1
    for kind in ("size", "count", "relation"):
        # A picture with a wrong colour meets no demand; an exact one always meets one and misses another.
        assert found[kind][met] >= 20, found
    assert found["single"] == [20, 20]
    # Of some pairs the colours cannot be exchanged: one of the two compositions would not be a seen one.
    assert (found["pair"][0] > 20) is not met and found["pair"][1] > 0


def test_without_a_pool_there_is_nothing_to_reflect_on():
    with pytest.raises(ValueError, match="reflect_own needs pictures"):
        sample_example(np.random.default_rng(0), {"reflect_own": 1.0})


# --------------------------------------------------------------------- drawing the pool


@pytest.fixture
def drawing() -> OwnPictures:
    return OwnPictures(
        policy=BagelCheckpoint("data/shapes/umm"),
        task=ReasoningT2I(64, 64, max_tokens=16, guidance=Guidance(text=2.5, interval=(0.0, 1.0))),
        schedule=Schedule(5),
        parts=2,
        part_size=8,
        kinds={"single": 1.0, "relation": 1.0},
    )


def test_parts_are_drawn_once_and_a_lost_one_again(drawing: OwnPictures, tmp_path):
    drawing.draw(tmp_path, seed=3)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["0000.npz", "0001.npz"]
    before = [np.load(file)["pixels"] for file in files]
    assert not np.array_equal(*before)
    files[1].unlink()
    stamp = files[0].stat().st_mtime_ns
    drawing.draw(tmp_path, seed=3)
    assert files[0].stat().st_mtime_ns == stamp
    assert np.array_equal(np.load(files[1])["pixels"], before[1])
    drawing.policy = None  # nothing is missing: no model is needed
    drawing.draw(tmp_path, seed=3)


def test_the_pool_is_what_was_drawn(drawing: OwnPictures, tmp_path):
    drawing.draw(tmp_path, seed=3)
    pool = drawing.read(tmp_path)
    stored = {picture.tobytes() for part in range(2) for picture in np.load(tmp_path / f"{part:04d}.npz")["pixels"]}
    assert 0 < len(pool) <= 16 and {one.pixels.tobytes() for one in (*pool.right, *pool.wrong)} <= stored
    assert {one.scene.kind for one in (*pool.right, *pool.wrong)} == {"single", "relation"}


def test_a_damaged_part_is_named(drawing: OwnPictures, tmp_path):
    drawing.draw(tmp_path, seed=3)
    (tmp_path / "0001.npz").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"0001\.npz cannot be read .* delete it"):
        drawing.read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"), [({"kinds": {"pare": 1}}, "unknown kind 'pare'"), ({"parts": 0}, "0")]
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        OwnPictures(BagelCheckpoint("data/shapes/umm"), ReasoningT2I(), Schedule(5), **settings)
