"""torch.compile for functions that every layer calls: compiled once for all layers, and again for each kind of call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch._dynamo import config as dynamo
from torch.fx.experimental import _config as symbolic

P = ParamSpec("P")
T = TypeVar("T")

VARIANTS = 64
"""Kinds of calls that a function is compiled for. Beyond them torch warns and runs the function as it is."""


@functools.cache
def fused(function: Callable[P, T]) -> Callable[P, T]:
    """The function, compiled at its first call. Sizes are left open: other lengths and rows use the same kernels.

    A new kind of call compiles it again: with gradient or without, with adapters or without, a size of one. The
    settings of torch that are changed here hold for the whole process.
    """
    # torch's own limit is 8, and a run has more: rollout and replay, both experts, the reference.
    dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS)
    # Otherwise two sizes that happen to be equal at first would have to be equal for ever.
    symbolic.use_duck_shape = False
    return torch.compile(function, dynamic=True)
