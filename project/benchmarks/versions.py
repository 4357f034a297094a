"""Whether a benchmark's file is the published one: figures of other prompts cannot be compared."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)


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
