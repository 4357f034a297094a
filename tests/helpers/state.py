"""What a checkpoint holds, leaf by leaf: to compare two of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

MEASURED = re.compile("/callbacks/Results.*/seconds$|/epoch_progress/(current|total)/(ready|started)$").search
"""What is never twice the same: seconds, and how often Lightning began an epoch, which it does not count again where a
run goes on from the end of one. The place in the data is the data module's."""


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors, numbers and texts of a nest of dicts and lists, by their places in it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{name}/{place}")
    elif not MEASURED(name):
        yield name, value


def tensors(value: Any) -> dict[str, torch.Tensor]:
    """The tensors among them."""
    return {name: leaf for name, leaf in leaves(value) if isinstance(leaf, torch.Tensor)}


def saved(file: Path) -> dict[str, Any]:
    """The contents of a checkpoint."""
    found: dict[str, Any] = torch.load(file, weights_only=True)
    return found


def digest(checkpoint: dict[str, Any]) -> str:
    """Of everything that a run goes on from: weights, optimizer, schedule, averages, place in the data, counters."""
    sha = hashlib.sha256()
    for name, leaf in sorted(leaves(checkpoint), key=lambda pair: pair[0]):
        sha.update(name.encode())
        if isinstance(leaf, torch.Tensor):
            sha.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode() + leaf.contiguous().numpy().tobytes())
        else:
            sha.update(repr(leaf).encode())
    return sha.hexdigest()
