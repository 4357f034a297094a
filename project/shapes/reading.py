"""What a detector believes of pictures, and what follows from it for scenes.

Suffixes: N pictures, 4 cells, E = 3 (empty, object, other), C colours (6), S shapes (6), Z sizes (2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from project.shapes.scenes import COLOURS, SHAPES, SIZES, Layout, Object, Placed, Scene

COLOUR_NAMES = tuple(COLOURS)
SURE_OBJECT = 0.5
"""Least probability of an object (presence, colour, shape and size together) that the hard reading accepts."""
DOUBT = 0.2
"""Least probability of "other" at which the hard reading no longer accepts an object."""
SURE_EMPTY = 0.7
"""Least probability of emptiness that the hard reading accepts: a faint object is no empty cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a detector believes of N pictures; the four cells of a picture are independent given the picture."""

    presence_N4E: np.ndarray
    """Probabilities of empty, object, other."""
    colour_N4C: np.ndarray
    """Probabilities of the colours, given an object."""
    shape_N4SZ: np.ndarray
    """Joint probabilities of shape and size, given an object."""
    plain_N: np.ndarray
    """Probability that the background is one of the plain tones, evenly."""

    def __len__(self) -> int:
        return len(self.plain_N)

    def probability(self, thing: Object) -> np.ndarray:
        """[N, 4]: probability that the cell holds this object (of any size if the size is open)."""
        shape = self.shape_N4SZ[..., SHAPES.index(thing.shape), :]
        sized = shape.sum(-1) if thing.size is None else shape[..., SIZES.index(thing.size)]
        return self.presence_N4E[..., 1] * self.colour_N4C[..., COLOUR_NAMES.index(thing.colour)] * sized

    def layouts(self) -> list[Layout | None]:
        """The likeliest layout of each picture (jitter and background left at 0).

        None if the picture does not clearly show one: in some cell neither the likeliest object (presence, colour
        and shape together) nor emptiness reaches its threshold, or the background is likelier uneven than plain.
        """
        colour_N4 = self.colour_N4C.argmax(-1)
        shape_N4K = self.shape_N4SZ.reshape(*self.shape_N4SZ.shape[:2], -1)
        thing_N4 = self.presence_N4E[..., 1] * self.colour_N4C.max(-1) * shape_N4K.max(-1) > SURE_OBJECT
        thing_N4 &= self.presence_N4E[..., 2] < DOUBT
        clear_N = (thing_N4 | (self.presence_N4E[..., 0] > SURE_EMPTY)).all(-1) & (self.plain_N > 0.5)
        rows = zip(clear_N.tolist(), thing_N4, colour_N4, shape_N4K.argmax(-1), strict=True)
        return [_layout(things, colours, shapes) if clear else None for clear, things, colours, shapes in rows]

    def satisfies(self, scenes: Sequence[Scene]) -> np.ndarray:
        """bool [N]: whether picture n, as read, shows scene n and nothing else. Raises ValueError on a length."""
        self._check(scenes)
        pairs = zip(scenes, self.layouts(), strict=True)
        return np.array([layout is not None and scene.satisfied_by(layout) for scene, layout in pairs], dtype=bool)

    def accuracy(self, scenes: Sequence[Scene]) -> float:
        """Share of pictures that satisfy their scene."""
        return float(self.satisfies(scenes).mean())

    def confidence(self, scenes: Sequence[Scene]) -> np.ndarray:
        """[N]: probability that picture n shows scene n and nothing else on a plain background."""
        self._check(scenes)
        values = np.zeros(len(scenes))
        for n, scene in enumerate(scenes):
            one = self[n]
            cells_K4 = [one.presence_N4E[0, :, 0], *(one.probability(thing)[0] for thing in scene.objects)]
            for assignment in scene.assignments():
                values[n] += np.prod([cells_K4[0 if i is None else i + 1][c] for c, i in enumerate(assignment)])
        return values * self.plain_N

    def __getitem__(self, n: int) -> Reading:
        """The reading of picture n alone (N = 1)."""
        return Reading(
            presence_N4E=self.presence_N4E[n : n + 1],
            colour_N4C=self.colour_N4C[n : n + 1],
            shape_N4SZ=self.shape_N4SZ[n : n + 1],
            plain_N=self.plain_N[n : n + 1],
        )

    def _check(self, scenes: Sequence[Scene]) -> None:
        if len(scenes) != len(self):
            raise ValueError(f"{len(scenes)} scenes for {len(self)} pictures: give one scene per picture")


def _layout(thing_4: np.ndarray, colour_4: np.ndarray, shape_4: np.ndarray) -> Layout:
    first, second, third, fourth = (
        Placed(thing=Object(colour=COLOUR_NAMES[c], shape=SHAPES[k // 2], size=SIZES[k % 2])) if there else None
        for there, c, k in zip(thing_4.tolist(), colour_4.tolist(), shape_4.tolist(), strict=True)
    )
    return Layout(cells=(first, second, third, fourth))
