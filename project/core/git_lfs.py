"""Git LFS leaves a small text in place of a large file until it is fetched."""

from __future__ import annotations

from pathlib import Path

LFS_REMEDY = "run `git lfs pull` in its repository"
_START = b"version https://git-lfs"


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file holds only the pointer to its contents; false if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(_START)) == _START
    except OSError:
        return False
