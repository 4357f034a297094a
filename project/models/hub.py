"""Folders by path or by hub id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def local_copy(directory: str, patterns: Sequence[str], what: str = "checkpoint") -> Path:
    """A local folder, or the local copy of those files of the hub repository `owner/name` that match `patterns`.

    Raises FileNotFoundError if there is neither.
    """
    folder = Path(directory)
    if folder.is_dir():
        return folder
    if len(folder.parts) != 2 or folder.is_absolute() or folder.parts[0] in (".", "..", "data", "runs"):
        raise FileNotFoundError(f"no {what} folder {directory}: give a folder, or a hub id such as owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(directory, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{directory} is neither a folder here nor a hub id that can be fetched: {error}"
        ) from None
