"""What is computed in fp32 even where the rest of a model is narrower: its heads and its autoencoder.

A bf16 number has 8 significant bits: logits near 24 come in steps of 0.125, and each value of a velocity is off by up
to 0.4%. In fp32 the log-probabilities are exact for what the layers say. The rounding of the layers stays, and differs
between rollout and replay (see `first_step_ratio` in project/objectives/grpo.py).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Linear):
    """A linear layer that computes in fp32 (or wider), whatever autocast and the format of its weights say.

    The logits and the velocity of every backbone come from a head. Loaders keep its weights in fp32 (`stored_dtype`).
    BAGEL-7B has 152064 words, so that takes 1.1 GB more than bf16. Widening the weights in every forward would take
    2.2 GB at the peak, held until the backward pass, and would move these bytes twice more for each sampled token.
    Narrow weights (a model after `.to(torch.bfloat16)`) are nevertheless widened here. An adapter on a head computes
    its own product as autocast says.
    """

    def forward(self, input: Tensor) -> Tensor:
        with autocast_off(input.device):
            bias = None if self.bias is None else widened(self.bias)
            return F.linear(widened(input), widened(self.weight), bias)


def stored_dtype(module: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """Format of a module's own weights in a model that is loaded in `dtype`."""
    return torch.promote_types(dtype, torch.float32) if isinstance(module, Head) else dtype


def widened(tensor: Tensor) -> Tensor:
    """In fp32, or as it is if it is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def autocast_off(device: torch.device) -> AbstractContextManager[object]:
    """Products have the format of what is multiplied."""
    return torch.autocast(_switch(device), enabled=False)


def autocasts(device: torch.device) -> bool:
    """Whether products choose their format themselves."""
    return torch.is_autocast_enabled(_switch(device))


def _switch(device: torch.device) -> str:
    """Whose autocast counts. The meta device has none: the CPU's takes its place and changes nothing there."""
    return device.type if torch.amp.is_autocast_available(device.type) else "cpu"


def never_narrower(move: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """For `nn.Module._apply`: moves tensors as `move` does, but makes none narrower than fp32."""

    def moved(tensor: Tensor) -> Tensor:
        new = move(tensor)
        narrow = new.is_floating_point() and new.dtype.itemsize < torch.float32.itemsize
        return tensor.to(new.device) if narrow else new

    return moved
