"""What can be told of a prompt's questions before any judge is asked."""

from __future__ import annotations

from collections.abc import Sequence


def circular(depends_on: Sequence[Sequence[int]]) -> list[int]:
    """Positions of the questions that depend on each other in a circle, or on such; empty if there is none."""
    left = set(range(len(depends_on)))
    while free := {place for place in left if left.isdisjoint(depends_on[place])}:
        left -= free
    return sorted(left)
