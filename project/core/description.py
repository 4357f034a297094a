"""What a setting is, in words and numbers: for manifests, which say how a result was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from project.core.digest import digest


def described(value: Any) -> Any:
    """A value as JSON holds it, so that equal settings give equal descriptions in every process.

    An object is its class with its public attributes, a function its name, a tensor a digest of its numbers.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range | set | frozenset):
        items = [described(item) for item in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    if isinstance(value, torch.Tensor | np.ndarray):
        numbers = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        return f"{type(value).__name__} {list(numbers.shape)} {digest(numbers.tobytes()).hex()[:16]}"
    if isinstance(value, partial):
        return {"function": described(value.func), "args": described(value.args), **described(value.keywords)}
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Path | torch.dtype | torch.device):
        return str(value)
    return {"class": described(type(value))} | {
        name: described(item) for name, item in sorted(_attributes(value).items()) if not name.startswith("_")
    }


def _attributes(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(getattr(value, "__dict__", {}))
