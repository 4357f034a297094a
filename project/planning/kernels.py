"""The kernels that a GPU would run for a block: operations and bytes of each, by shapes alone.

A call that works is one kernel. It reads its tensors and writes its results, each once. What is fused (`fusing`) makes
no kernels of its own until a matrix product, attention or somebody outside reads the result: then one kernel reads what
the result was made of and writes it. This is what a perfect fusion of pointwise operations has to move. (A norm is
pointwise here: a row of it stays on the chip.) tests/planning/test_kernels.py compares it with torch's own compiler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from project.planning.counting import COPIES, FORMULAS, LOOKED_UP, NO_WORK

aten = torch.ops.aten
Kind = Literal["products", "adapters", "attention", "norms", "casts", "copies", "elementwise", "fused"]
PRODUCTS: tuple[Kind, ...] = ("products", "adapters", "attention")
"""Kinds that need the operations; all others only move values."""
UNTOUCHED = NO_WORK | {aten.detach, aten.alias}
EMPTY = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty}
FRESH = {aten.zeros, aten.ones, aten.full, aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.fill_}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch. `flops`: floating point operations of matrix products. `moved`: bytes read and written."""

    kind: Kind
    flops: int
    moved: int

    def seconds(self, speed: float, bandwidth: float) -> float:
        """At least: at a number of operations and of bytes per second."""
        return max(self.flops / speed, self.moved / bandwidth)


@dataclass(slots=True)
class _Made:
    """What a tensor inside a fusion is made of: the storages that have to be read for it, and how many bytes of each.

    Storages are held, because one that is freed leaves its key to another.
    """

    storage: torch.UntypedStorage
    sources: dict[int, tuple[torch.UntypedStorage, int]] = field(default_factory=dict)

    @property
    def read(self) -> int:
        """Bytes."""
        return sum(size for _, size in self.sources.values())


class Kernels(TorchDispatchMode):
    """Collects the kernels of a block in `kernels`.

    Args:
        adapters: their rank; products with a matrix that has a side of it are theirs. 0 for none.
    """

    def __init__(self, adapters: int = 0) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []
        self.paused = False
        self._rank = adapters
        self._made: dict[int, _Made] | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = getattr(func, "overloadpacket", None)
        if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten" or func.is_view:
            return result
        if packet in UNTOUCHED:
            if self._made is not None and packet in EMPTY:
                for tensor in _tensors(result):
                    self._made.setdefault(_key(tensor), _Made(tensor.untyped_storage()))
            return result
        self._count(packet, args, kwargs, result)
        return result

    def _count(self, packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        read, written = _tensors((args, kwargs)), _tensors(result)
        if not written or not all(tensor.is_meta for tensor in written):
            return
        if packet in FORMULAS:
            flops = int(FORMULAS[packet](*args, **kwargs, out_val=result))
            self.add("adapters" if self._of_adapters([*read, *written]) else "products", read, written, flops)
            return
        if packet in FRESH:
            read = []
        elif packet is aten.copy_:
            read = read[1:]
        elif packet in LOOKED_UP:
            read = written
        kind: Kind = "elementwise"
        if packet is aten._to_copy and written[0].dtype != read[0].dtype:
            kind = "casts"
        elif packet in COPIES or packet is aten._to_copy:
            kind = "copies"
        self.add(kind, read, written)

    def add(self, kind: Kind, read: Sequence[Tensor], written: Sequence[Tensor], flops: int = 0) -> None:
        """One kernel; inside a fusion only if its kind is one of `PRODUCTS`."""
        if self._made is None:
            self._launch(kind, flops, sum(map(_bytes, read)) + sum(map(_bytes, written)))
        elif kind in PRODUCTS:
            self.needed(read)
            self._launch(kind, flops, sum(map(_bytes, read)) + sum(map(_bytes, written)))
        else:
            sources: dict[int, tuple[torch.UntypedStorage, int]] = {}
            for tensor in read:
                for key, (storage, size) in self._sources(tensor).items():
                    known = sources[key][1] if key in sources else 0
                    sources[key] = storage, max(size, known)
            for tensor in written:
                made = self._made.setdefault(_key(tensor), _Made(tensor.untyped_storage()))
                made.sources |= sources

    @contextmanager
    def fusing(self, forgotten: bool = False) -> Iterator[None]:
        """Fuses what runs inside the block. `needed` tells what of it is read outside.

        Args:
            forgotten: count nothing; only what things are made of is remembered for a fusion that goes on with them.
        """
        before, self._made = self._made, {} if self._made is None else self._made
        paused, self.paused = self.paused, self.paused or forgotten
        try:
            yield
        finally:
            self._made, self.paused = before, paused

    def needed(self, tensors: Sequence[Tensor]) -> None:
        """Called inside a fusion: a product or somebody outside reads these results of it."""
        assert self._made is not None
        for tensor in tensors:
            made = self._made.pop(_key(tensor), None)
            if made is not None:
                self._launch("fused", 0, made.read + min(_bytes(tensor), made.storage.nbytes()))

    def _sources(self, tensor: Tensor) -> dict[int, tuple[torch.UntypedStorage, int]]:
        assert self._made is not None
        made = self._made.get(_key(tensor))
        return {_key(tensor): (tensor.untyped_storage(), _bytes(tensor))} if made is None else made.sources

    def _launch(self, kind: Kind, flops: int, moved: int) -> None:
        if not self.paused:
            self.kernels.append(Kernel(kind, flops, moved))

    def _of_adapters(self, tensors: Sequence[Tensor]) -> bool:
        return self._rank > 0 and any(self._rank in tensor.shape[-2:] for tensor in tensors)


def _tensors(values: Any) -> list[Tensor]:
    """Each once."""
    return list({id(x): x for x in tree_flatten(values)[0] if isinstance(x, Tensor)}.values())


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _bytes(tensor: Tensor) -> int:
    """That a kernel touches: an expanded tensor has only those of its storage."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())
