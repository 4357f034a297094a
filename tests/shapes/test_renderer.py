from __future__ import annotations

import time

import numpy as np
import pytest

from project.shapes.renderer import RADIUS, coverage, render
from project.shapes.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Layout, Object, Placed


def test_pixels_by_hand():
    thing = Object(colour="blue", shape="square", size="large")
    picture = render(Layout(cells=(None, Placed(thing=thing, dx=1, dy=-1), None, None), background=2))
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert tuple(picture[15, 49]) == COLOURS["blue"]
    # Half the side is 0.88 * 13 = 11.44: the centre (49, 15) leaves columns 37 and 60 covered by 0.44.
    assert np.allclose(picture[15, 37], 0.56 * np.array(BACKGROUNDS[2]) + 0.44 * np.array(COLOURS["blue"]), atol=14)
    assert (picture[:, :32] == BACKGROUNDS[2]).all() and (picture[32:] == BACKGROUNDS[2]).all()


@pytest.mark.parametrize("size", SIZES)
def test_areas_are_those_of_the_plane(size: str):
    square = RADIUS[size] ** 2
    expected = {
        "circle": np.pi * 0.95**2,
        "square": 1.76**2,
        "triangle": 0.5 * 1.8 * 2.0,
        "cross": 4 * 0.97 * 0.66 - 0.66**2,
        "star": 5 * 0.46 * np.sin(np.pi / 5),
        "ring": np.pi * (1 - 0.55**2),
    }
    for shape, area in expected.items():
        assert coverage(shape, size).sum() == pytest.approx(area * square, rel=0.02), shape


def test_jitter_moves_a_shape_by_whole_pixels_inside_its_cell():
    for shape in SHAPES:
        moved = coverage(shape, "large", 1, -1)
        assert np.allclose(moved, np.roll(coverage(shape, "large"), (-1, 1), axis=(0, 1)))
        frame = np.ones((32, 32), dtype=bool)
        frame[2:-2, 2:-2] = False
        assert moved[frame].max() < 0.1  # The tip of the star.


def test_rendering_is_fast_enough_to_draw_on_the_fly():
    cells = tuple(Placed(thing=Object(colour="red", shape=shape, size="large")) for shape in SHAPES[:4])
    layout = Layout(cells=(cells[0], cells[1], cells[2], cells[3]))
    render(layout)
    start = time.process_time()
    for _ in range(500):
        render(layout)
    assert 500 / (time.process_time() - start) > 5000
