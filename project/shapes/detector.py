"""Reads pictures back: per cell, calibrated probabilities of empty / object / other, colour, shape and size.

How it looks at a picture (never by rendering it again: that is `second_opinion`):
  1. The background colour is the median of the frame around the cells, where next to nothing of an object reaches.
  2. Per cell, the foreground is the mean offset from the background, weighted by its length to the fourth power so
     that soft edges hardly count. Its distance to the ray from the background to each of the six colours is the
     evidence for a colour; how far along the ray it reaches is its `fullness` (1 = opaque).
  3. The mask is every pixel's share of that foreground; squared distances to the mask templates of 6 shapes x 2 sizes
     at 25 positions are the evidence for a shape and a size.
  4. Evidence that something is there, and a clean object: strength, fullness, the least distance to a colour and to a
     template, the part of the foreground that has another hue than its mean, and the largest foreign 4x4 block.

A mixture `w A + (1 - w) B` is nearer to A than to B by (2 w - 1) times their squared distance. So the evidence for a
candidate is its *margin*: how much farther than the best candidate it is, in units of the distance between the two;
its log-odds against the best are -(linear * margin + cubic * margin^3). These constants and a logistic regression of
presence (`Calibration`) are fitted by `project.shapes.calibration` on degraded pictures. "other" is what fits
nothing: half a shape, a blob, two shapes on top of each other.

Suffixes: N pictures, M = 4 N cells, C colours (6), K = 12 (shape, size) pairs, S shapes (6), Z sizes (2),
F features, E = 3 (empty, object, other).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from project.shapes.reading import Reading
from project.shapes.renderer import coverage
from project.shapes.scenes import BACKGROUNDS, CELL_SIZE, CELLS, COLOURS, PICTURE_SIZE, SHAPES, SIZES

REACH = 2
"""Templates stand up to this many pixels off the cell's centre, one more than the renderer's objects."""
_FRAME = 2
"""Width [px] of the frame in which next to nothing of an object stands."""
_FULL = 200.0
"""RGB distance [levels] of a clear foreground from the background."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Constants between evidence and probability; see `project.shapes.calibration.fit`."""

    colour: tuple[float, float]
    """Linear and cubic coefficient of a colour's margin."""
    shape: tuple[float, float]
    """Linear and cubic coefficient of a (shape, size)'s margin."""
    object_weights: tuple[float, ...]
    """Log-odds of object against empty: weights of `Evidence.presence_MF`."""
    other_weights: tuple[float, ...]
    """Log-odds of other against empty: weights of `Evidence.presence_MF`."""


CALIBRATION = Calibration(
    colour=(7.584, 0.122),
    shape=(6.76, 1.248),
    object_weights=(7.818, 0.298, -3.077, 1.869, 1.715, 0.073, -10.824, 0.715, 0.147, 0.023, -4.007, 2.165, 1.862),
    other_weights=(-7.588, 0.565, -1.078, 1.445, 1.216, 1.028, 5.048, -0.044, 7.732, -0.731, 15.54, -1.504, -1.199),
)
"""What `project.shapes.calibration.fit(np.random.default_rng(0))` returns."""
PLAIN_LEVELS = 24.0
"""Unevenness of the background [levels, RMS] at which it is as likely as not called plain, a convention."""
PLAIN_SCALE = 4.0
"""Levels over which that probability falls (logistic)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is measured in pictures before any of it is called a probability."""

    presence_MF: np.ndarray
    """Features of presence, see `_presence_features`."""
    colour_MC: np.ndarray
    """Margin of each colour behind the best one, 0 or more."""
    shape_MK: np.ndarray
    """Margin of each (shape, size) behind the best one, 0 or more."""
    unevenness_N: np.ndarray
    """RMS distance of the frame's pixels from the nearest plain background [levels]."""


def detect(pictures: np.ndarray, calibration: Calibration = CALIBRATION) -> Reading:
    """Read pictures, uint8 [N, 64, 64, 3]. Raises ValueError on any other shape or type."""
    evidence = measure(pictures)
    number = len(pictures)
    object_M = (evidence.presence_MF * np.array(calibration.object_weights)).sum(-1)
    other_M = (evidence.presence_MF * np.array(calibration.other_weights)).sum(-1)
    return Reading(
        presence_N4E=_softmax(np.stack([0 * object_M, object_M, other_M], axis=1)).reshape(number, CELLS, 3),
        colour_N4C=_softmax(_log_odds(evidence.colour_MC, calibration.colour)).reshape(number, CELLS, -1),
        shape_N4SZ=_softmax(_log_odds(evidence.shape_MK, calibration.shape)).reshape(
            number, CELLS, len(SHAPES), len(SIZES)
        ),
        plain_N=1 / (1 + np.exp(np.minimum((evidence.unevenness_N - PLAIN_LEVELS) / PLAIN_SCALE, 50.0))),
    )


def _log_odds(margin: np.ndarray, coefficients: tuple[float, float]) -> np.ndarray:
    """Of each candidate against the best one."""
    linear, cubic = coefficients
    return -(linear * margin + cubic * margin**3)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@cache
def _frame_mask() -> np.ndarray:
    """bool [64, 64]: pixels at the edges of the cells, where objects hardly reach."""
    steps = np.arange(PICTURE_SIZE) % CELL_SIZE
    inside = (steps >= _FRAME) & (steps < CELL_SIZE - _FRAME)
    return ~(inside[:, None] & inside[None, :])


@cache
def _templates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks [K * 25, 1024] float32, their areas [K * 25] and the distances between the K at their best [K, K]."""
    reach = range(-REACH, REACH + 1)
    masks = np.stack(
        [coverage(shape, size, dx, dy).ravel() for shape in SHAPES for size in SIZES for dx in reach for dy in reach]
    ).astype(np.float32)
    area = (masks**2).sum(-1)
    kinds = len(SHAPES) * len(SIZES)
    centred = masks.reshape(kinds, len(reach) ** 2, -1)[:, len(reach) ** 2 // 2]
    distances = (centred**2).sum(-1, keepdims=True) - 2 * centred @ masks.T + area
    return masks, area, distances.reshape(kinds, kinds, -1).min(-1)


def _margins(distance_MK: np.ndarray, separation_KK: np.ndarray) -> np.ndarray:
    """How much farther than the best candidate each is, in units of their separation; at most 1.5."""
    best_M = distance_MK.argmin(-1)
    behind_MK = distance_MK - distance_MK.min(-1, keepdims=True)
    return np.minimum(behind_MK / np.maximum(separation_KK[best_M], 1e-6), 1.5).astype(np.float64)


def _ray_distances(offset_M3: np.ndarray, ray_MC3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances [M, C] of offsets to rays 0.4 .. 1.1 of the way to each colour, and how far along they are."""
    along_MC = (ray_MC3 * offset_M3[:, None]).sum(-1) / np.maximum((ray_MC3**2).sum(-1), 1.0)
    nearest_MC3 = np.clip(along_MC, 0.4, 1.1)[..., None] * ray_MC3
    return ((offset_M3[:, None] - nearest_MC3) ** 2).sum(-1), along_MC


@cache
def _colour_separation() -> np.ndarray:
    """Squared distances [C, C] between the foregrounds of full colours, on the middle background."""
    rays_C3 = np.array(list(COLOURS.values()), dtype=np.float64) - np.array(BACKGROUNDS[1])
    return _ray_distances(rays_C3, np.broadcast_to(rays_C3, (len(rays_C3), *rays_C3.shape)))[0]


def measure(pictures: np.ndarray) -> Evidence:
    """The evidence in pictures, uint8 [N, 64, 64, 3]. Raises ValueError on any other shape or type."""
    if pictures.ndim != 4 or pictures.shape[1:] != (PICTURE_SIZE, PICTURE_SIZE, 3) or pictures.dtype != np.uint8:
        raise ValueError(
            f"the detector reads uint8 [N, {PICTURE_SIZE}, {PICTURE_SIZE}, 3], not {pictures.dtype} "
            f"{list(pictures.shape)}: convert or resize the pictures first"
        )
    ground_N3, noise_N, unevenness_N = _measure_frame(pictures)
    ground_M3, noise_M = np.repeat(ground_N3, CELLS, axis=0), np.repeat(noise_N, CELLS)
    cells = pictures.reshape(-1, 2, CELL_SIZE, 2, CELL_SIZE, 3).swapaxes(2, 3).reshape(len(ground_M3), -1, 3)
    offset_MP3 = cells - ground_M3[:, None]
    power_MP = (offset_MP3**2).sum(-1)
    weight_MP = power_MP**2 + 1e-6
    mean_M3 = np.einsum("mp,mpc->mc", weight_MP, offset_MP3) / weight_MP.sum(-1, keepdims=True)
    palette_C3 = np.array(list(COLOURS.values()), dtype=np.float32)
    colour_MC, along_MC = _ray_distances(mean_M3, palette_C3 - ground_M3[:, None])

    contrast_M = np.maximum((mean_M3**2).sum(-1), 1.0)
    mask_MP = np.clip(np.einsum("mpc,mc->mp", offset_MP3, mean_M3) / contrast_M[:, None], 0.0, 1.2)
    masks, area, separation_KK = _templates()
    # One product for each picture: rounding must not depend on what else is read.
    along_MK = (mask_MP.reshape(-1, CELLS, mask_MP.shape[-1]) @ masks.T).reshape(len(mask_MP), -1)
    distance_MK = (mask_MP**2).sum(-1, keepdims=True) - 2 * along_MK + area
    shape_MK = distance_MK.reshape(len(mask_MP), len(separation_KK), -1).min(-1)
    best_M = (distance_MK / area).argmin(-1)
    misfit_M = (distance_MK / area).min(-1)
    blocks_MB3 = _blocks(offset_MP3 - masks[best_M][..., None] * mean_M3[:, None])
    # White noise puts two thirds of its power across any one direction of colour.
    across_M = (power_MP - mask_MP**2 * contrast_M[:, None]).sum(-1) - 2 / 3 * noise_M * mask_MP.shape[1]
    return Evidence(
        presence_MF=_presence_features(
            strength_M=(power_MP.sum(-1) - noise_M * mask_MP.shape[1]) / _FULL**2,
            fullness_M=np.take_along_axis(along_MC, colour_MC.argmin(-1)[:, None], axis=1)[:, 0],
            colour_M=colour_MC.min(-1) / 100.0**2,
            shape_M=misfit_M,
            hue_M=across_M / (contrast_M * np.maximum(mask_MP.sum(-1), 1.0)),
            local_M=(blocks_MB3**2).sum(-1).max(-1) / _FULL**2,
        ),
        colour_MC=_margins(colour_MC, _colour_separation()),
        shape_MK=_margins(shape_MK, separation_KK),
        unevenness_N=unevenness_N,
    )


def _blocks(pixels_MP3: np.ndarray, side: int = 4) -> np.ndarray:
    """Means of the blocks of side x side pixels of a cell [M, 64, 3]: noise falls by `side`, a foreign piece stays."""
    per_row = CELL_SIZE // side
    return pixels_MP3.reshape(-1, per_row, side, per_row, side, 3).mean((2, 4)).reshape(-1, per_row**2, 3)


def _measure_frame(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Background [N, 3], mean squared RGB distance of noise from it [N], RMS unevenness of the frame [N]."""
    frame_NP3 = pictures[:, _frame_mask()].astype(np.float32)
    # For the median of a few hundred pixels every third is enough.
    ground_N3 = np.median(frame_NP3[:, ::3], axis=1)
    tones_B3 = np.array(BACKGROUNDS, dtype=np.float32)
    tone_N3 = tones_B3[((ground_N3[:, None] - tones_B3) ** 2).sum(-1).argmin(-1)]
    unevenness_N = np.sqrt(((frame_NP3 - tone_N3[:, None]) ** 2).reshape(len(pictures), -1).mean(-1))
    # The median, because blurred objects may reach into the frame; of chi-squared with 3 degrees it is 0.789 the mean.
    power_NP = ((frame_NP3[:, ::3] - ground_N3[:, None]) ** 2).sum(-1)
    return ground_N3, np.median(power_NP, axis=1) / 0.789, unevenness_N


def _presence_features(
    *,
    strength_M: np.ndarray,
    fullness_M: np.ndarray,
    colour_M: np.ndarray,
    shape_M: np.ndarray,
    hue_M: np.ndarray,
    local_M: np.ndarray,
) -> np.ndarray:
    """Features [M, 13]: a constant, then saturating functions of strength, fullness and the four misfits."""
    strength_M = np.maximum(strength_M, 0.0)
    there_M = strength_M / (strength_M + 3.0)
    full_M = np.clip(fullness_M * there_M, 0.003, 0.997)
    shape_M, hue_M = np.clip(shape_M, 0.0, 1.0), np.clip(hue_M, 0.0, 1.0)
    local_M = np.clip(local_M, 0.0, 2.0)
    return np.stack(
        [
            np.ones_like(there_M),
            np.log(strength_M + 0.1),
            np.exp(-strength_M),
            np.log(full_M / (1 - full_M)),
            there_M * np.minimum(np.sqrt(colour_M), 1.0),
            there_M * np.log(colour_M + 0.003),
            there_M * shape_M,
            there_M * np.log(shape_M + 0.01),
            there_M * hue_M,
            there_M * np.log(hue_M + 0.01),
            there_M * local_M,
            there_M * np.clip(local_M - 0.4, 0.0, 0.5),
            there_M * np.log(local_M + 0.03),
        ],
        axis=1,
    ).astype(np.float64)
