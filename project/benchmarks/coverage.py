"""How much of a benchmark was scored: what every result says beside its figures."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

SHOWN = 5
"""Missing items that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What was expected, and what of it is missing."""

    expected: int
    """Number of items (pictures, or prompts) of the whole benchmark."""
    missing: tuple[str, ...]
    """Names of those without a score, in the order of the benchmark."""

    @property
    def scored(self) -> int:
        return self.expected - len(self.missing)

    @property
    def share(self) -> float:
        """Scored share of what was expected, in [0, 1]."""
        return self.scored / self.expected

    @property
    def whole(self) -> bool:
        return not self.missing

    def __str__(self) -> str:
        """E.g. "2 of 4 scored; missing: 00001/2, 00001/3"."""
        if self.whole:
            return f"all {self.expected} scored"
        more = f" and {len(self.missing) - SHOWN} more" if len(self.missing) > SHOWN else ""
        return f"{self.scored} of {self.expected} scored; missing: {', '.join(self.missing[:SHOWN])}{more}"


def coverage(expected: Iterable[str], scored: Collection[str]) -> Coverage:
    """Compares the names that a benchmark expects with those that have a score.

    Raises ValueError if none is expected, if a name is expected twice, or if a scored name is not expected.
    """
    names = list(expected)
    known = set(names)
    if not names:
        raise ValueError("no item is left to score: check the file of the benchmark and the filter of its items")
    if len(known) < len(names):
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        raise ValueError(f"item {twice!r} is there twice: give every item an id of its own")
    if strangers := [name for name in scored if name not in known]:
        raise ValueError(f"{strangers[0]!r} was scored, but the benchmark has no such item: check the benchmark's file")
    there = set(scored)
    return Coverage(expected=len(names), missing=tuple(name for name in names if name not in there))
