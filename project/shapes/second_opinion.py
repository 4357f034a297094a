"""A second reading of pictures, independent of the detector and never seen by a reward.

It renders: a picture shows a scene if, cell by cell, it lies closer than `LARGEST_DISTANCE` to a rendered picture of
the scene (the best of all assignments of cells, jitters and open sizes, on the picture's background), and no other
content of that cell would be closer. The distance is the RMS over the cell's 32 * 32 * 3 values, in levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from project.shapes.renderer import render_cell
from project.shapes.scenes import BACKGROUNDS, CELL_SIZE, CELLS, COLOURS, SHAPES, SIZES, Layout, Object, Placed, Scene

LARGEST_DISTANCE = 32.0
"""A cell farther than this [levels, RMS] shows nothing that has a name. A circle half a pixel between two renderings
is 20 away, white noise of 24 levels 24; half a small shape 35 and more. Between 0 and 32 the nearest content decides:
the two most alike (small circle and square) are 18 apart."""
REACH = 2
"""Renderings stand up to this many pixels off the cell's centre, one more than in exact pictures."""

_CONTENTS = tuple(Object(colour=c, shape=k, size=z) for c in COLOURS for k in SHAPES for z in SIZES)
_BATCH = 256


def satisfies(pictures: np.ndarray, scenes: Sequence[Scene], largest_distance: float = LARGEST_DISTANCE) -> np.ndarray:
    """bool [N]: whether picture n, uint8 [N, 64, 64, 3], looks like a rendered picture of scene n.

    Raises ValueError if the numbers of pictures and scenes differ.
    """
    if len(pictures) != len(scenes):
        raise ValueError(f"{len(scenes)} scenes for {len(pictures)} pictures: give one scene per picture")
    shown = read(pictures, largest_distance)
    pairs = zip(shown, scenes, strict=True)
    return np.array([layout is not None and scene.satisfied_by(layout) for layout, scene in pairs], dtype=bool)


def read(pictures: np.ndarray, largest_distance: float = LARGEST_DISTANCE) -> list[Layout | None]:
    """The layout that each picture looks like (jitter and background left at 0); None if a cell has no name."""
    return [
        _nearest(distance_4O, largest_distance)
        for start in range(0, len(pictures), _BATCH)
        for distance_4O in cell_distances(pictures[start : start + _BATCH])
    ]


def _nearest(distance_4O: np.ndarray, largest_distance: float) -> Layout | None:
    if (distance_4O.min(-1) > largest_distance).any():
        return None
    first, second, third, fourth = (
        None if index == 0 else Placed(thing=_CONTENTS[index - 1]) for index in distance_4O.argmin(-1).tolist()
    )
    return Layout(cells=(first, second, third, fourth))


def cell_distances(pictures: np.ndarray) -> np.ndarray:
    """RMS distances [N, 4, 1 + 72]: of each cell to emptiness, then to the 72 objects at their best jitter."""
    number = len(pictures)
    tone_N = _nearest_tone(pictures)
    cells = pictures.reshape(number, 2, CELL_SIZE, 2, CELL_SIZE, 3).swapaxes(2, 3).reshape(number, CELLS, -1)
    distances = np.empty((number, CELLS, 1 + len(_CONTENTS)))
    for tone in range(len(BACKGROUNDS)):
        chosen = np.flatnonzero(tone_N == tone)
        if len(chosen):
            rows = cells[chosen].reshape(len(chosen) * CELLS, -1).astype(np.float32)
            distances[chosen] = _distances(rows, tone).reshape(len(chosen), CELLS, -1)
    return distances


def _nearest_tone(pictures: np.ndarray) -> np.ndarray:
    """[N]: the background nearest to the mean of the picture's outermost pixels, where nothing stands."""
    edge_NP3 = np.concatenate([pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]], axis=1)
    gap_NB3 = edge_NP3.mean(1)[:, None] - np.array(BACKGROUNDS)
    return (gap_NB3**2).sum(-1).argmin(-1)


def _distances(cells_MD: np.ndarray, tone: int) -> np.ndarray:
    renderings_RD = _renderings(tone)
    ground_D = np.tile(np.array(BACKGROUNDS[tone], dtype=np.float32), CELL_SIZE**2)
    # Relative to the background, which keeps the float32 expansion of the square precise.
    offset_MD, offset_RD = cells_MD - ground_D, renderings_RD - ground_D
    power_M1 = (offset_MD**2).sum(-1, keepdims=True)
    square_MR = power_M1 - 2 * offset_MD @ offset_RD.T + (offset_RD**2).sum(-1)
    square_MO = square_MR.reshape(len(cells_MD), len(_CONTENTS), -1).min(-1)
    square = np.concatenate([power_M1, square_MO], axis=1)
    return np.sqrt(np.maximum(square, 0.0) / cells_MD.shape[1])


@cache
def _renderings(tone: int) -> np.ndarray:
    """Every object at every jitter on one background, float32 [72 * 25, 3072]."""
    jitters = range(-REACH, REACH + 1)
    return np.stack(
        [
            render_cell(tone, thing.colour, thing.shape, thing.size or "large", dx, dy).ravel()
            for thing in _CONTENTS
            for dx in jitters
            for dy in jitters
        ]
    ).astype(np.float32)
