"""A trained policy out of the house: as a PEFT adapter, or as a checkpoint folder with the adapters merged in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from project.core.atomic_files import atomic_folder
from project.models.base import UnifiedModel
from project.models.lora import has_adapters, merge_adapters, save_adapter

UNITS = {"B": 1} | {
    prefix + suffix: base**power
    for suffix, base in (("B", 1000), ("IB", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}


def export_adapter(model: UnifiedModel, out: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a folder that `peft` and `project.models.lora.load_adapter` read, tensors in `dtype` (fp32 if None).

    Raises ValueError if the model has no adapters, or `out` is in use.
    """
    if not has_adapters(model):
        raise ValueError(
            "this policy has no adapters (all its weights were trained), so there is no PEFT adapter to write: "
            "export its weights, with --format bagel"
        )
    with whole_folder(out) as folder:
        save_adapter(model, folder, dtype)


def export_merged(
    model: UnifiedModel, out: str | Path, dtype: torch.dtype | None = None, max_shard_size: int | None = None
) -> None:
    """Merge the adapters, if any, into the model (in place) and write its checkpoint folder.

    Args:
        dtype: of the weights in the files; their own if None.
        max_shard_size: bytes in a weight file; no limit if None.

    Raises:
        ValueError: `out` is in use.
    """
    with whole_folder(out) as folder:
        merge_adapters(model, dtype)
        model.save_pretrained(folder, dtype, max_shard_size)


def check_unused(out: str | Path) -> None:
    """Raises ValueError if `out` is a file or a folder that holds something."""
    path = Path(out)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} is in use: name a new or an empty folder")


@contextmanager
def whole_folder(out: str | Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` when it is complete, and is removed when writing fails.

    Raises ValueError as `check_unused`, and NotWritten.
    """
    check_unused(out)
    with atomic_folder(Path(out)) as folder:
        yield folder


def parse_size(text: str) -> int | None:
    """Bytes of "5GB" (10^9 each), "5GiB" (2^30 each), "500MB" or "1000"; None (no limit) for 0. Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = (found[2].upper() or "B") if found else ""
    if not found or unit not in UNITS:
        raise ValueError(f"{text!r} is no size: give a number with {', '.join(UNITS)}, such as 5GB; 0 means no limit")
    return int(float(found[1]) * UNITS[unit]) or None
