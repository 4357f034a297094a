"""Contexts: what a model has read so far, as keys and values, and who may see them.

Two kinds, one interface, so that the same code reads a prompt in rollout and in replay:

- `StaticContext` (rollout, no gradient): buffers of a fixed capacity. A query writes its keys and values into
  the free slots behind the end; they become part of the context only if the context grows by them. A denoising
  query leaves them there to be overwritten by the next one, so nothing is copied per step, token or branch.
- `FunctionalContext` (replay, gradient): values are never written over; growing makes a new context.

Slots are only places to store: padding is a slot that nobody sees, and order is carried by positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

KeysValues = Sequence[tuple[Tensor, Tensor]]
"""Per layer the keys and values [R, heads, slots, head size]."""


class Context(ABC):
    """R rows of read tokens.

    Attributes:
        visible_RS: bool, false for padding.
        position_R: int64 [R] or [R, axes], where the next block stands as the backbone counts.
    """

    visible_RS: Tensor
    position_R: Tensor

    @property
    def rows(self) -> int:
        return self.position_R.shape[0]

    @property
    def slots(self) -> int:
        return self.visible_RS.shape[1]

    @property
    def padded(self) -> bool:
        """Whether some of its slots are padding."""
        return not bool(self.visible_RS.all())

    @abstractmethod
    def extend(self, layer: int, key_RHTC: Tensor, value_RHTC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer: the context's slots, then the query's own.

        The query may have n rows for each row of the context (its rows `i * n .. i * n + n - 1` read row i).
        """

    @abstractmethod
    def grown(self, keys_values: KeysValues, visible_RT: Tensor, position_R: Tensor) -> Context:
        """The context with the last query's tokens added; `position_R` is that of the next block."""

    @abstractmethod
    def back_to(self, slots: int, position_R: Tensor) -> Context:
        """The context as it was when it had so many slots, and the next block stood at `position_R`."""

    def rows_end(self) -> AbstractContextManager[None]:
        """While the block runs, a hidden token that is added is of a row that reads nothing more in it.

        What such a row computes goes nowhere, so no mask has to hide its own padding from it, and `padded` need not
        find out about it.
        """
        return nullcontext()

    @abstractmethod
    def select(self, rows: Tensor, room: int = 0) -> Context:
        """The given rows (repeated at will), with room for `room` more tokens where that must be reserved."""

    @abstractmethod
    def detach(self) -> Context:
        """The same context, through which no gradient flows."""

    @property
    def tensors(self) -> list[Tensor]:
        """Those that gradient flows through; none of a context that is used without gradient."""
        return []

    def leaves(self) -> Context:
        """The same context, which collects gradient at its `tensors` and lets none through."""
        return self.detach()


class StaticContext(Context):
    """Preallocated buffers, written in place; for use without gradients."""

    def __init__(
        self,
        *,
        layers: int,
        heads: int,
        head_size: int,
        capacity: int,
        dtype: torch.dtype,
        position_R: Tensor,
    ) -> None:
        rows, device = len(position_R), position_R.device
        shape = (rows, heads, capacity, head_size)
        self._keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self._values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self._visible = torch.zeros(rows, capacity, dtype=torch.bool, device=device)
        self._used = 0
        self._padded: bool | None = False
        self._rows_end = False
        self.position_R = position_R

    @property
    def visible_RS(self) -> Tensor:  # type: ignore[override]
        return self._visible[:, : self._used]

    @property
    def padded(self) -> bool:
        # Asked by every denoising step, and changed by none of them: a GPU is waited for once.
        if self._padded is None:
            self._padded = super().padded
        return self._padded

    @property
    def capacity(self) -> int:
        return self._visible.shape[1]

    def extend(self, layer: int, key_RHTC: Tensor, value_RHTC: Tensor) -> tuple[Tensor, Tensor]:
        if key_RHTC.shape[0] != self.rows:
            raise ValueError(f"a static context of {self.rows} rows got a query of {key_RHTC.shape[0]} rows")
        end = self._used + key_RHTC.shape[2]
        if end > self.capacity:
            raise ValueError(f"a context of capacity {self.capacity} cannot hold {end} tokens: reserve more room")
        self._keys[layer][:, :, self._used : end] = key_RHTC
        self._values[layer][:, :, self._used : end] = value_RHTC
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    def grown(self, keys_values: KeysValues, visible_RT: Tensor, position_R: Tensor) -> StaticContext:
        end = self._used + visible_RT.shape[1]
        self._visible[:, self._used : end] = visible_RT
        self._used = end
        if not self._rows_end:
            self._padded = self._padded or None  # padding stays padding
        self.position_R = position_R
        return self

    def back_to(self, slots: int, position_R: Tensor) -> StaticContext:
        self._used = slots
        if not self._rows_end:
            self._padded = None
        self.position_R = position_R
        return self

    @contextmanager
    def rows_end(self) -> Iterator[None]:
        padded = self.padded
        self._rows_end = True
        try:
            yield
        finally:
            self._rows_end = False
            self._padded = padded or None

    def select(self, rows: Tensor, room: int = 0) -> StaticContext:
        chosen = StaticContext(
            layers=len(self._keys),
            heads=self._keys[0].shape[1],
            head_size=self._keys[0].shape[3],
            capacity=self._used + room,
            dtype=self._keys[0].dtype,
            position_R=self.position_R[rows],
        )
        for mine, theirs in ((self._keys, chosen._keys), (self._values, chosen._values)):
            for old, new in zip(mine, theirs, strict=True):
                new[:, :, : self._used] = old[rows, :, : self._used]
        chosen._visible[:, : self._used] = self._visible[rows, : self._used]
        chosen._used = self._used
        chosen._padded = None
        return chosen

    def detach(self) -> StaticContext:
        return self


@dataclass(frozen=True)
class FunctionalContext(Context):
    """Keys and values as plain tensors of the graph."""

    keys_values: tuple[tuple[Tensor, Tensor], ...]
    visible_RS: Tensor
    position_R: Tensor

    @classmethod
    def empty(
        cls, *, layers: int, heads: int, head_size: int, dtype: torch.dtype, position_R: Tensor
    ) -> FunctionalContext:
        rows, device = len(position_R), position_R.device
        nothing = torch.zeros(rows, heads, 0, head_size, dtype=dtype, device=device)
        return cls(
            keys_values=((nothing, nothing),) * layers,
            visible_RS=torch.zeros(rows, 0, dtype=torch.bool, device=device),
            position_R=position_R,
        )

    def extend(self, layer: int, key_RHTC: Tensor, value_RHTC: Tensor) -> tuple[Tensor, Tensor]:
        if self.slots == 0:
            return key_RHTC, value_RHTC
        repeats = key_RHTC.shape[0] // self.rows
        key, value = self.keys_values[layer]
        if repeats > 1:
            key, value = (x.repeat_interleave(repeats, dim=0) for x in (key, value))
        return torch.cat([key, key_RHTC], dim=2), torch.cat([value, value_RHTC], dim=2)

    def grown(self, keys_values: KeysValues, visible_RT: Tensor, position_R: Tensor) -> FunctionalContext:
        return FunctionalContext(
            keys_values=tuple(
                (torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2))
                for (old_k, old_v), (k, v) in zip(self.keys_values, keys_values, strict=True)
            ),
            visible_RS=torch.cat([self.visible_RS, visible_RT], dim=1),
            position_R=position_R,
        )

    def back_to(self, slots: int, position_R: Tensor) -> FunctionalContext:
        return FunctionalContext(
            keys_values=tuple((k[:, :, :slots], v[:, :, :slots]) for k, v in self.keys_values),
            visible_RS=self.visible_RS[:, :slots],
            position_R=position_R,
        )

    def select(self, rows: Tensor, room: int = 0) -> FunctionalContext:
        return FunctionalContext(
            keys_values=tuple((k[rows], v[rows]) for k, v in self.keys_values),
            visible_RS=self.visible_RS[rows],
            position_R=self.position_R[rows],
        )

    def detach(self) -> FunctionalContext:
        return FunctionalContext(
            keys_values=tuple((k.detach(), v.detach()) for k, v in self.keys_values),
            visible_RS=self.visible_RS,
            position_R=self.position_R,
        )

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for pair in self.keys_values for tensor in pair]

    def leaves(self) -> FunctionalContext:
        leaves = self.detach()
        for mine, leaf in zip(self.tensors, leaves.tensors, strict=True):
            leaf.requires_grad_(mine.requires_grad)
        return leaves


@dataclass(frozen=True)
class Contexts:
    """The three contexts that guidance reads.

    Attributes:
        main: everything.
        text_free: the state before the last input text (never the generated reasoning).
        image_free: the texts only; None where no image was read and image guidance is off.
    """

    main: Context
    text_free: Context
    image_free: Context | None = None

    def detach(self) -> Contexts:
        """The same contexts, through which no gradient flows."""
        return self._each(lambda context: context.detach())

    @property
    def tensors(self) -> list[Tensor]:
        """Those of all contexts that gradient flows through."""
        contexts = (self.main, self.text_free, *(() if self.image_free is None else (self.image_free,)))
        return [tensor for context in contexts for tensor in context.tensors]

    def leaves(self) -> Contexts:
        """The same contexts, which collect gradient at their `tensors` and let none through."""
        return self._each(lambda context: context.leaves())

    def _each(self, change: Callable[[Context], Context]) -> Contexts:
        return Contexts(
            main=change(self.main),
            text_free=change(self.text_free),
            image_free=None if self.image_free is None else change(self.image_free),
        )
