"""A replay in parts, each with a backward of its own: the texts, and the trained steps a few at a time.

All parts read the same contexts, which are computed once. Shape suffixes: project/trajectory.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from project.models.context import Contexts
from project.trajectory import Replay


class SharedContexts:
    """Contexts that several backward passes read: each leaves its gradient at them, and the last one carries it on.

    Attributes:
        leaves: the contexts to read. No gradient flows through them; it stays at their tensors.
    """

    def __init__(self, contexts: Contexts) -> None:
        self.leaves = contexts.leaves()
        pairs = zip(contexts.tensors, self.leaves.tensors, strict=True)
        self._pairs = [(origin, leaf) for origin, leaf in pairs if leaf.requires_grad]

    def carried(self, loss: Tensor) -> Tensor:
        """The loss, whose backward pass also carries on what the earlier ones left at the contexts."""
        left = [(origin, leaf.grad) for origin, leaf in self._pairs if leaf.grad is not None]
        if not left:
            return loss
        result: Tensor = _Carried.apply(loss, [gradient for _, gradient in left], *(origin for origin, _ in left))
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPart:
    """A part of a replay.

    Attributes:
        replay: holds the texts, or some trained steps, or all. A part holds no `clean_RLD` and no `velocity`.
        shared: contexts at which the parts before this one left their gradient; set in the last part that reads them.
        whole: whether it is all of the replay.
    """

    replay: Replay
    shared: SharedContexts | None = None
    whole: bool = False

    def complete(self, loss: Tensor) -> Tensor:
        """The loss to start the backward pass from."""
        return loss if self.shared is None else self.shared.carried(loss)


class _Carried(torch.autograd.Function):
    """A scalar as it is; its backward pass also sends gradients that are already known to some tensors."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        return *gradient, None, *ctx.gradients
