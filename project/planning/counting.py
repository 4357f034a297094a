"""What runs inside a block, counted call by call: operations, weights read, kernels, copies. On any machine."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
FORMULAS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    # torch registers the attention kernels of GPUs alone.
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
"""Operations of a call, a product and its sum counted as two, as `torch.utils.flop_counter.FlopCounterMode` does."""
NO_WORK = {aten._unsafe_view, aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.lift_fresh}
"""Calls without a kernel, beside those that make views."""
LOOKED_UP = {aten.embedding, aten.index, aten.index_select, aten.gather}
"""Calls that read a few rows of a table."""
COPIES = {aten.copy_, aten.clone, aten.cat, aten.stack, aten.index, aten.index_select, aten.repeat}


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted between two moments. Operations are floating point operations; sizes are bytes."""

    flops: int = 0
    adapter_flops: int = 0
    """Of products with adapters' matrices, forwards."""
    recomputed_flops: int = 0
    """Of forwards that the backward pass makes again."""
    calls: int = 0
    """Operator calls that do work: on a GPU a kernel launch each, or a few."""
    weight_bytes: int = 0
    """Of parameters that were read; a table's looked up rows alone."""
    casts: int = 0
    """Calls that change the number format of a tensor."""
    cast_bytes: int = 0
    """Read and written by them."""
    copies: int = 0
    """Other calls that only move values."""
    copy_bytes: int = 0
    waits: int = 0
    """Times that the host waits for the device."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


@dataclass(slots=True, kw_only=True)
class Part:
    """A stretch of an update: a forward of the model and what follows it up to the next, or a phase without any.

    Attributes:
        phase: of the stopwatch.
        kind: what the forward was for (`Forwards`); "" for what belongs to none.
        tokens, hidden: that were fed, and padding among them.
        delimiters: tokens beside latents, which go through the other expert.
        latents: latent tokens of all branches, which are among `tokens`.
    """

    phase: str
    kind: str = ""
    tokens: int = 0
    hidden: int = 0
    delimiters: int = 0
    latents: int = 0
    tally: Tally = field(default_factory=Tally)


class Operations(TorchDispatchMode):
    """Counts what runs inside the block, in `parts`.

    Args:
        weights: named parameters whose reading is counted; names with "lora_" are adapters'.
        phase: tells the phase that is running.
    """

    def __init__(self, weights: Iterable[tuple[str, nn.Parameter]], phase: Callable[[], str]) -> None:
        super().__init__()
        self._weights: weakref.WeakKeyDictionary[torch.UntypedStorage, bool] = weakref.WeakKeyDictionary()
        for name, parameter in weights:
            self._weights[parameter.untyped_storage()] = "lora_" in name
        self._phase = phase
        self.parts: list[Part] = []
        self.paused = False
        """What runs is not counted."""

    @property
    def part(self) -> Part:
        """The stretch that is running."""
        phase = self._phase()
        if not self.parts or self.parts[-1].phase != phase:
            self.begin()
        return self.parts[-1]

    def begin(self, kind: str = "", **tokens: int) -> None:
        """A new stretch."""
        self.parts.append(Part(phase=self._phase(), kind=kind, **tokens))  # type: ignore[arg-type]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func.overloadpacket
        if not self.paused and not func.is_view and packet not in NO_WORK:
            self._count(packet, args, kwargs, result)
        return result

    def _count(self, packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        part = self.part
        tally = part.tally
        tally.calls += 1
        read = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        of_adapters = False
        for tensor in read:
            adapter = self._weights.get(tensor.untyped_storage())
            if adapter is not None:
                tally.weight_bytes += _bytes(result) if packet in LOOKED_UP else tensor.nbytes
                of_adapters |= adapter
        if packet in FORMULAS:
            flops = int(FORMULAS[packet](*args, **kwargs, out_val=result))
            tally.flops += flops
            if part.phase == "backward" and torch.is_grad_enabled():
                # The backward pass itself has gradients off; checkpointing turns them on to compute a layer again.
                tally.recomputed_flops += flops
            elif of_adapters and part.phase != "backward":
                tally.adapter_flops += flops
        elif packet is aten._to_copy and isinstance(result, Tensor) and read and result.dtype != read[0].dtype:
            tally.casts += 1
            tally.cast_bytes += result.nbytes + read[0].nbytes
            if (adapter := self._weights.get(read[0].untyped_storage())) is not None:
                self._weights[result.untyped_storage()] = adapter  # a narrow copy of a weight is read in its place
        elif packet in COPIES or packet is aten._to_copy:
            tally.copies += 1
            tally.copy_bytes += 2 * _bytes(result)


def _bytes(result: Any) -> int:
    return sum(value.nbytes for value in tree_flatten(result)[0] if isinstance(value, Tensor))
