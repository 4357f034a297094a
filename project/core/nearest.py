"""What somebody may have meant: the near name among those that there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy: the near name, or all of them."""
    known = sorted(set(known))
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f"did you mean {near[0]!r}?"
    if not known:
        return "it takes none, remove it"
    return f"choose of {', '.join(known)}" if len(known) <= 40 else "see --help for what there is"
