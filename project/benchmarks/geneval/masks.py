"""COCO's run-length encoding of masks: runs of pixels outside and inside in turn, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BITS = 5
"""Of a number that a letter carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLengths:
    """A mask, encoded."""

    height: int
    width: int
    runs: np.ndarray
    """int64 lengths, of pixels outside first."""

    def mask(self) -> np.ndarray:
        """bool [height, width]."""
        inside = np.arange(len(self.runs)) % 2 == 1
        return np.repeat(inside, self.runs).reshape(self.width, self.height).T


def run_lengths(encoded: Any) -> RunLengths:
    """The mask that JSON says: {"size": [height, width], "counts": ...}.

    `counts` is the list of run lengths, or the text that pycocotools makes of it (see `runs_of`).

    Raises ValueError for anything else, and for runs that do not fill the size.
    """
    runs: list[Any]
    match encoded:
        case {"size": [int(height), int(width)], "counts": str(text)}:
            runs = runs_of(text)
        case {"size": [int(height), int(width)], "counts": [*runs]}:
            pass
        case _:
            raise ValueError('a mask is no run-length encoding: give {"size": [height, width], "counts": ...}')
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"a mask's runs do not fill its size {height}x{width}: encode it again")
    return RunLengths(height=height, width=width, runs=np.array(runs, dtype=np.int64))


def runs_of(text: str) -> list[int]:
    """Run lengths from COCO's text.

    Each number is cut into groups of five bits, the lowest first, one letter (code 48 and up) for each group; the sixth
    bit of a letter says that another group follows, and the highest bit of the last group is the sign. From the fourth
    number on, it is the difference to the one two places before.

    Raises ValueError for letters that cannot be, and for an end within a number.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError(f"a mask's text holds {letter!r}, which no encoding does: encode it again")
        value |= (code & 31) << shift
        shift += BITS
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("a mask's text ends within a number: encode it again")
    return runs
