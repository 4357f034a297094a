"""torch.compile for functions that every layer calls: compiled once for all layers, and again for each kind of call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def fused(function: Callable[P, T]) -> Callable[P, T]:
    """The function, compiled at its first call. Sizes are left open: other lengths and rows use the same kernels."""
    return torch.compile(function, dynamic=True)
