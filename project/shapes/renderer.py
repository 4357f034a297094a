"""Layout -> picture, exactly: the same layout is the same bytes.

A shape is a region of the plane (unit: half its extent), supersampled 8 x 8 per pixel to a coverage in [0, 1];
a pixel is background + coverage * (colour - background), rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from project.shapes.scenes import BACKGROUNDS, CELL_SIZE, COLOURS, PICTURE_SIZE, Layout

RADIUS = {"small": 8.0, "large": 13.0}
"""Half the extent of an object [px]."""
SUPERSAMPLING = 8


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points (x to the right, y down, in units of the radius) belong to the shape."""
    distance = np.hypot(x, y)
    match shape:
        case "circle":
            return distance <= 0.95
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) <= 0.88
        case "triangle":
            return (y <= 0.85) & (np.abs(x) <= (y + 0.95) / 1.8)
        case "cross":
            return (np.minimum(np.abs(x), np.abs(y)) <= 0.33) & (np.maximum(np.abs(x), np.abs(y)) <= 0.97)
        case "ring":
            return (distance <= 1.0) & (distance >= 0.55)
        case "star":
            return _inside_star(x, y + 0.05)
    raise ValueError(f"no renderer for the shape {shape!r}: add a case to _inside")


def _inside_star(x: np.ndarray, y: np.ndarray, points: int = 5, inner: float = 0.46) -> np.ndarray:
    """A star of radius 1 with its first point upwards; its notches lie at radius `inner`."""
    wedge = np.pi / points
    angle = np.abs((np.arctan2(x, -y) + wedge) % (2 * wedge) - wedge)
    # Within half a wedge the outline is the line from the tip (1, 0) to the notch (inner, wedge).
    tip, notch = np.array([1.0, 0.0]), inner * np.array([np.cos(wedge), np.sin(wedge)])
    edge = notch - tip
    radius = np.hypot(x, y)
    across = (radius * np.cos(angle) - tip[0]) * edge[1] - (radius * np.sin(angle) - tip[1]) * edge[0]
    return across <= 0


@cache
def coverage(shape: str, size: str, dx: int = 0, dy: int = 0) -> np.ndarray:
    """How much of each pixel of a cell the shape covers, float64 [32, 32] in [0, 1]."""
    steps = (np.arange(CELL_SIZE * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - CELL_SIZE / 2
    x, y = np.meshgrid((steps - dx) / RADIUS[size], (steps - dy) / RADIUS[size])
    fine = _inside(shape, x, y).reshape(CELL_SIZE, SUPERSAMPLING, CELL_SIZE, SUPERSAMPLING)
    covered = fine.mean(axis=(1, 3))
    covered.flags.writeable = False
    return covered


@cache
def render_cell(background: int, colour: str, shape: str, size: str, dx: int, dy: int) -> np.ndarray:
    """One cell, uint8 [32, 32, 3]."""
    ground = np.array(BACKGROUNDS[background], dtype=np.float64)
    covered = coverage(shape, size, dx, dy)[..., None]
    cell = np.rint(ground + covered * (np.array(COLOURS[colour]) - ground)).astype(np.uint8)
    cell.flags.writeable = False
    return cell


def render(layout: Layout) -> np.ndarray:
    """The picture of a layout, uint8 [64, 64, 3]."""
    picture = np.empty((PICTURE_SIZE, PICTURE_SIZE, 3), dtype=np.uint8)
    picture[:] = BACKGROUNDS[layout.background]
    for cell, placed in enumerate(layout.cells):
        if placed is not None:
            thing = placed.thing
            top, left = cell // 2 * CELL_SIZE, cell % 2 * CELL_SIZE
            picture[top : top + CELL_SIZE, left : left + CELL_SIZE] = render_cell(
                layout.background, thing.colour, thing.shape, thing.size or "large", placed.dx, placed.dy
            )
    return picture


def render_all(layouts: Sequence[Layout]) -> np.ndarray:
    """The pictures of layouts, uint8 [N, 64, 64, 3]."""
    return np.stack([render(layout) for layout in layouts])
