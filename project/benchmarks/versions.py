"""Whether a file, or its items, are those of a published version: figures of other prompts cannot be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from project.benchmarks.scoring import listed

log = logging.getLogger(__name__)

PUBLISHED: Mapping[str, Mapping[str, str]] = {
    "tiif": {"b42725e33e3d35d0d1d987e17070435f6379dd649ddf3ac4e1ff5b929ed9945b": "testmini, both lengths"},
    "wise_legacy": {
        "a3c2447dd6e9a2a517dedc71211f101f8298a32eb9eabc4e6ea49e8f720f660a": "as published",
        "d19d17954d52fa313c4dc0cf577ba0247b95be1b2d8404eff6bde9e0fa516ca1": "rewritten",
        "c6e4ffab0e32b2eb4fce93844c5e1b75dbb5909380c9c8332e59671e3791fb29": "as published, with BAGEL's hints",
    },
    "wise_verified": {"7329cc437663c8c53679096d3cbe180963a8a9943d87c4adcbc769e9ee2c748d": "as published"},
    "gedit": {"92e7e0339de7ddc8620859094576b9e5c97f15bc7ac020b3b9d4e2f736efb32b": "UniWorld's English file"},
}
"""Benchmark -> digest of all of its items -> name of the version. DPG-Bench has no entry, and GEdit-Bench none of the
dataset itself: neither was at hand."""


def file_version(file: Path, published: Mapping[str, str]) -> str:
    """SHA-256 of a file, in hexadecimal digits. Warns if it is none of the published ones.

    Args:
        file: of prompts or questions.
        published: what the published files are called, by their SHA-256.
    """
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found not in published:
        known = " or ".join(f"{digest[:12]} ({name})" for digest, name in published.items())
        log.warning(
            "%s has SHA-256 %s, not %s: its figures cannot be compared with published ones", file, found[:12], known
        )
    return found


def item_digest(items: Sequence[Any]) -> str:
    """SHA-256, in hexadecimal digits, of what frozen dataclasses with an `id` say in words and numbers.

    It does not depend on the order of the items, nor on the layout of the files that they come from. Source pictures do
    not count.
    """
    rows = [_words(item) for item in sorted(items, key=lambda item: str(item.id))]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _words(item: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(item).items() if name != "source"}


def item_version(benchmark: str, items: Sequence[Any]) -> str | None:
    """The name of the published version that the items are, None if they are none of a benchmark that has any.

    Warns in that case, and names both. A benchmark without entries in `PUBLISHED` gives None without a warning. Give
    it the whole benchmark, not the part that is drawn.
    """
    published = PUBLISHED.get(benchmark, {})
    found = item_digest(items)
    if found not in published and published:
        known = listed([f"{digest[:12]} ({name})" for digest, name in published.items()])
        log.warning(
            "%s: %d items with the digest %s, none of the published %s: their figures cannot be compared with "
            "published ones", benchmark, len(items), found[:12], known,
        )  # fmt: skip
    return published.get(found)
