"""COCO's run-length encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from project.benchmarks.geneval.masks import run_lengths, runs_of


def text_of(runs: list[int]) -> str:
    """COCO's text of run lengths."""
    letters = []
    for n, run in enumerate(runs):
        rest = run - (runs[n - 2] if n > 2 else 0)
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = not ((rest == -1 and bits & 16) or (rest == 0 and not bits & 16))
            letters.append(chr(48 + bits + (32 if more else 0)))
    return "".join(letters)


def test_by_hand() -> None:
    """Column by column: two pixels outside, three inside, one outside."""
    found = run_lengths({"size": [2, 3], "counts": [2, 3, 1]})
    assert found.mask().tolist() == [[False, True, True], [False, True, False]]
    assert runs_of("231") == [2, 3, 1]
    # 100 = 3 * 32 + 4: the letters of 4 with the sign that more follows, and of 3.
    assert runs_of("T35") == [100, 5]
    # The fourth number is the difference to the second: 5 - 9 = -4 is 28 with its highest bit set.
    assert runs_of("091" + chr(48 + 28)) == [0, 9, 1, 5]


def test_any_mask_comes_back() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        height, width = map(int, generator.integers(1, 90, 2))
        mask_HW = np.zeros((height, width), dtype=bool)
        mask_HW[height // 3 :, width // 4 : width // 2 + 1] = True
        mask_HW ^= generator.random((height, width)) < 0.01
        flat = np.concatenate([[False], mask_HW.T.ravel()])
        changes = np.flatnonzero(flat[1:] != flat[:-1])
        runs = np.diff(np.concatenate([[0], changes, [flat.size - 1]])).tolist()
        assert runs_of(text_of(runs)) == runs
        assert (run_lengths({"size": [height, width], "counts": text_of(runs)}).mask() == mask_HW).all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (None, "no run-length encoding"),
        ({"size": [2, 3]}, "no run-length encoding"),
        ({"size": [2, 3], "counts": [2, 3]}, "do not fill its size 2x3"),
        ({"size": [2, 3], "counts": [7, -1]}, "do not fill"),
        ({"size": [2, 3], "counts": "24"}, None),
        ({"size": [2, 3], "counts": "2 4"}, "which no encoding does"),
        ({"size": [2, 3], "counts": "24T"}, "ends within a number"),
    ],
)
def test_what_is_no_mask(wrong: Any, message: str | None) -> None:
    if message is None:
        assert run_lengths(wrong).mask().sum() == 4
        return
    with pytest.raises(ValueError, match=message):
        run_lengths(wrong)
