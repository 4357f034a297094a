"""What the scorers of all benchmarks share: the two modes, what was left out, and answers that cannot be read.

A scorer is a pure function: items (what a benchmark asks), records (what a judge said of them) and a mode in, figures
and a `Coverage` out. It never raises for an item without a score. Whoever publishes a figure calls
`Coverage.require_complete` first, or says that some items are missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["official", "strict"]
"""`official`: what the benchmark's own scripts compute, mistakes included. `strict`: what its formula says."""
MODES: tuple[Mode, ...] = ("official", "strict")
SHOWN = 8
"""Names in a message; more are counted."""


class UnparsedAnswer(ValueError):
    """A judge's answer does not have the form that it was asked for; nothing is guessed in its place.

    Args:
        reason: What is wrong with it.
        answer: The judge's text; the message shows how it begins.
    """

    def __init__(self, reason: str, answer: str) -> None:
        self.reason, self.answer = reason, answer
        shown = answer if len(answer) <= 120 else answer[:120] + "..."
        super().__init__(f"{reason}, in the answer {shown!r}: ask again, or take a judge that keeps to the form")


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of a benchmark a figure rests on.

    Args:
        expected: Number of items that the figure is about.
        missing: Ids of items without a score: not drawn, not judged, or judged in a way that cannot be read.
        dropped: (id, reason) of what was judged, whole items or parts of them, and is left out as the official script
            does. Always empty in strict mode.
    """

    expected: int
    missing: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()

    @property
    def scored(self) -> int:
        """Number of expected items with a score."""
        return self.expected - len(self.missing)

    @property
    def share(self) -> float:
        """Scored items as a share of the expected ones; 0 if none are expected."""
        return self.scored / self.expected if self.expected else 0.0

    @property
    def complete(self) -> bool:
        """Every expected item has a score, and there is one."""
        return self.expected > 0 and not self.missing

    def require_complete(self) -> None:
        """Raises ValueError, naming the missing items, unless all are scored."""
        if not self.expected:
            raise ValueError("there are no items to score: look at the filter, or at the file of the benchmark")
        if self.missing:
            raise ValueError(f"{self}: draw and judge them, or allow missing items and report the coverage")

    def __str__(self) -> str:
        parts = [f"{self.scored} of {self.expected} items scored"]
        parts += [f"missing: {listed(self.missing)}"] if self.missing else []
        left_out = [f"{name} ({reason})" for name, reason in self.dropped]
        parts += [f"left out as the official script does: {listed(left_out)}"] if left_out else []
        return "; ".join(parts)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def mean(values: Collection[float]) -> float | None:
    """Their mean, None if there are none. Added one by one: official figures are rounded from such sums."""
    total = 0.0
    for value in values:
        total += value
    return total / len(values) if values else None


def require_unique(ids: Iterable[str], what: str) -> None:
    """Raises ValueError, naming the first ones, if ids occur more than once."""
    seen: set[str] = set()
    twice = {name: None for name in ids if name in seen or seen.add(name)}  # type: ignore[func-returns-value]
    if twice:
        raise ValueError(f"{what} occur more than once: {listed(list(twice))}: keep one record of each item")


def require_known(ids: Iterable[str], known: Collection[str], what: str) -> None:
    """Raises ValueError, naming the first ones, for ids that the benchmark does not have."""
    strange = [name for name in ids if name not in known]
    if strange:
        raise ValueError(
            f"{what} are no items of this benchmark: {listed(strange)}: judge with the same files as were drawn"
        )


def percent(value: float | None) -> str:
    """A share for a table, in percent; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}"
