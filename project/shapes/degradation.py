"""Pictures that are less than exact, with what is true of them: for fitting and testing the detector.

The model of a degraded cell: a cell that shows the mixture `w * A + (1 - w) * B` of two contents (an object or
nothing) counts as A with probability w, because that is what an undecided denoiser draws: the mean of what it
believes. Three cells in twenty hold junk (a shape cut in half, a blob between cells, a colour that is none, two shapes
on top of each other), whose truth is "other". The whole picture is then blurred and made noisy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from project.shapes.renderer import coverage, render, render_cell
from project.shapes.scenes import (
    BACKGROUNDS,
    CELL_SIZE,
    CELLS,
    COLOURS,
    JITTER,
    PICTURE_SIZE,
    SHAPES,
    SIZES,
    Layout,
    Object,
)

EMPTY = "empty"
OTHER = "other"
Content = Object | str
"""What a cell shows: an object, EMPTY or OTHER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """N degraded pictures, uint8 [N, 64, 64, 3], and per picture and cell the content that counts as true."""

    pictures: np.ndarray
    truth: tuple[tuple[Content, ...], ...]


def degraded_pictures(rng: np.random.Generator, number: int) -> Degraded:
    """`number` pictures whose cells are drawn independently by the model of this file."""
    pictures, truth = [], []
    for _ in range(number):
        background = int(rng.integers(len(BACKGROUNDS)))
        picture = np.empty((PICTURE_SIZE, PICTURE_SIZE, 3))
        contents = []
        for cell in range(CELLS):
            top, left = cell // 2 * CELL_SIZE, cell % 2 * CELL_SIZE
            pixels, content = _cell(rng, background)
            picture[top : top + CELL_SIZE, left : left + CELL_SIZE] = pixels
            contents.append(content)
        picture = blur(picture, sigma=rng.uniform(0.0, 1.5))
        pictures.append(add_noise(rng, picture, sigma=rng.uniform(0.0, 20.0)))
        truth.append(tuple(contents))
    return Degraded(pictures=np.stack(pictures), truth=tuple(truth))


def _cell(rng: np.random.Generator, background: int) -> tuple[np.ndarray, Content]:
    """One cell [32, 32, 3] and its truth: half are unmixed, 35% are mixtures, 15% are junk."""
    draw = rng.random()
    if draw < 0.15:
        return junk_cell(rng, background), OTHER
    first, second = _content(rng), _content(rng)
    weight = 1.0 if draw < 0.65 else rng.uniform(0.5, 1.0)
    pixels = weight * _pixels(rng, background, first) + (1 - weight) * _pixels(rng, background, second)
    return pixels, first if rng.random() < weight else second


def _content(rng: np.random.Generator) -> Content:
    return EMPTY if rng.random() < 0.4 else _object(rng)


def _object(rng: np.random.Generator) -> Object:
    colour = tuple(COLOURS)[rng.integers(len(COLOURS))]
    return Object(colour=colour, shape=SHAPES[rng.integers(len(SHAPES))], size=SIZES[rng.integers(len(SIZES))])


def _pixels(rng: np.random.Generator, background: int, content: Content) -> np.ndarray:
    if not isinstance(content, Object):
        return np.broadcast_to(np.array(BACKGROUNDS[background], dtype=np.float64), (CELL_SIZE, CELL_SIZE, 3))
    dx, dy = rng.integers(-JITTER, JITTER + 1, size=2).tolist()
    return render_cell(background, content.colour, content.shape, content.size or "large", dx, dy).astype(np.float64)


def junk_cell(rng: np.random.Generator, background: int) -> np.ndarray:
    """A cell that shows something, but nothing that has a name."""
    first = _object(rng)
    pixels = _pixels(rng, background, first).copy()
    ground = np.array(BACKGROUNDS[background], dtype=np.float64)
    match rng.integers(4):
        case 0:  # half a shape
            pixels = np.rot90(pixels, k=int(rng.integers(4))).copy()
            pixels[: CELL_SIZE // 2] = ground
        case 1:  # a shape that sticks out of its cell
            pixels = np.roll(pixels, (int(rng.integers(10, 17)), int(rng.integers(0, 17))), axis=(0, 1))
        case 2:  # a colour that is none: the mean of two, shifted
            covered = coverage(first.shape, first.size or "large")[..., None]
            a, b = rng.choice(np.array(list(COLOURS.values())), size=2, replace=False)
            pixels = ground + covered * ((a + b) / 2 - ground)
        case _:  # two shapes of other colours on top of each other
            mask = coverage(SHAPES[rng.integers(len(SHAPES))], "small", 0, 0)[..., None]
            others = [rgb for name, rgb in COLOURS.items() if name != first.colour]
            pixels = pixels + np.roll(mask, int(rng.integers(3, 7)), axis=1) * (
                np.array(others[rng.integers(len(others))]) - pixels
            )
    return pixels


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of [H, W, 3], standard deviation `sigma` [px], edges repeated; float64."""
    pixels = pixels.astype(np.float64)
    if sigma < 0.1:
        return pixels
    radius = int(np.ceil(3 * sigma))
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-(steps**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((radius, radius), (0, 0), (0, 0)), mode="edge")
    pixels = sum(k * padded[i : i + height] for i, k in enumerate(kernel))
    padded = np.pad(pixels, ((0, 0), (radius, radius), (0, 0)), mode="edge")
    return sum(k * padded[:, i : i + width] for i, k in enumerate(kernel))


def add_noise(rng: np.random.Generator, pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Independent Gaussian noise of `sigma` levels on every value; uint8."""
    return np.clip(np.rint(pixels + sigma * rng.standard_normal(pixels.shape)), 0, 255).astype(np.uint8)


def with_junk(rng: np.random.Generator, layout: Layout) -> np.ndarray:
    """The picture, uint8 [64, 64, 3], with junk in the place of its first shape."""
    pixels = render(layout).copy()
    cell, _ = layout.things[0]
    top, left = cell // 2 * CELL_SIZE, cell % 2 * CELL_SIZE
    junk = np.rint(junk_cell(rng, layout.background)).astype(np.uint8)
    pixels[top : top + CELL_SIZE, left : left + CELL_SIZE] = junk
    return pixels


def with_uneven_background(rng: np.random.Generator, layout: Layout) -> np.ndarray:
    """The picture with 40 to 90 levels of shade per colour channel, smoothly from one side to the other."""
    pixels = render(layout)
    slope = np.linspace(0.0, 1.0, PICTURE_SIZE)[:: rng.choice([-1, 1])]
    shade = np.broadcast_to(slope[:, None, None], pixels.shape) * rng.uniform(40, 90, size=3)
    shade = shade if rng.random() < 0.5 else shade.swapaxes(0, 1)
    return np.clip(pixels - shade, 0, 255).astype(np.uint8)
