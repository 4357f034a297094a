"""torch.compile for functions that every layer calls: compiled once for all layers, and again for each kind of call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from torch._dynamo import config as dynamo
from torch.fx.experimental import _config as symbolic

P = ParamSpec("P")
T = TypeVar("T")

VARIANTS = 64
"""Kinds of calls that a function is compiled for. Beyond them torch warns and runs the function as it is."""
_INSTEAD: ContextVar[Callable[[Any], Any] | None] = ContextVar("instead of compiling", default=None)


def fused(function: Callable[P, T]) -> Callable[P, T]:
    """The function, compiled at its first call. Sizes are left open: other lengths and rows use the same kernels.

    A new kind of call compiles it again: with gradient or without, with adapters or without, a size of one.
    """
    instead = _INSTEAD.get()
    result: Callable[P, T] = _compiled(function) if instead is None else instead(function)
    return result


@contextmanager
def instead_of_compiling(make: Callable[[Any], Any]) -> Iterator[None]:
    """Inside the block, `fused` gives what `make` makes of a function."""
    token = _INSTEAD.set(make)
    try:
        yield
    finally:
        _INSTEAD.reset(token)


@functools.cache
def _compiled(function: Callable[P, T]) -> Callable[P, T]:
    # Settings of the whole process. torch's own limit is 8, and a run has more: rollout and replay, the reference.
    dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS)
    # Otherwise two sizes that happen to be equal at first would have to be equal for ever.
    symbolic.use_duck_shape = False
    return torch.compile(function, dynamic=True)
