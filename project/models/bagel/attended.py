"""How the tokens of one forward attend: masks and rotary embeddings, made once for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from project.models.attention import bias_from_mask
from project.models.bagel.config import BagelConfig
from project.models.context import Context


@dataclass(frozen=True)
class Attended:
    """How the tokens of one forward attend, made once and used by every layer.

    Attributes:
        contexts: the contexts read, with the rows of the query that read each and their biases [rows, 1, T, S].
        cos_R1TC, sin_R1TC: rotary embedding; C is half a head, because both halves turn by the same angles.
    """

    contexts: tuple[tuple[Context | None, slice, Tensor | None], ...]
    cos_R1TC: Tensor
    sin_R1TC: Tensor
    freeze_und: bool = False
    """Let no gradient through what the understanding expert computed."""


def rotary(position_RT: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [R, 1, T, head_size / 2] of the rotary embedding, fp32."""
    frequencies = 1 / theta ** (
        torch.arange(0, head_size, 2, dtype=torch.float32, device=position_RT.device) / head_size
    )
    angles = (position_RT.float()[..., None] * frequencies)[:, None]
    return angles.cos(), angles.sin()


class _Rotation(torch.autograd.Function):
    """Turns the pairs (first half, second half) of each head by their angles, and puts the parts behind one another.

    Each part is read once and written once to where it stays. The gradient is turned back by the same angles.
    """

    @staticmethod
    def forward(ctx: Any, cos_R1TC: Tensor, sin_R1TC: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(cos_R1TC, sin_R1TC)
        ctx.lengths = [part.shape[1] for part in parts]
        rows, _, heads, size = parts[0].shape
        turned = parts[0].new_empty(rows, heads, sum(ctx.lengths), size)
        for part, out, cos, sin in zip(
            parts, *(x.split(ctx.lengths, dim=2) for x in (turned, cos_R1TC, sin_R1TC)), strict=True
        ):
            _turn(part.transpose(1, 2), cos, sin, out)
        return turned

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos_R1TC, sin_R1TC = ctx.saved_tensors
        turned = torch.empty_like(gradients[0], memory_format=torch.contiguous_format)
        _turn(gradients[0], cos_R1TC, -sin_R1TC, turned)
        return None, None, *(part.transpose(1, 2) for part in turned.split(ctx.lengths, dim=2))


def _turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    (first, second), (left, right) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)


def rotated(parts: Sequence[Tensor], attended: Attended) -> Tensor:
    """Parts [R, T_i, heads, size] turned by their positions, [R, heads, T, size]."""
    dtype = parts[0].dtype
    cos, sin = attended.cos_R1TC.to(dtype), attended.sin_R1TC.to(dtype)
    if torch.compiler.is_compiling():
        # In plain operations, which are fused with what stands around them.
        first, second = torch.cat(list(parts), dim=1).transpose(1, 2).chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    turned: Tensor = _Rotation.apply(cos, sin, *parts)
    return turned


def attended_by(
    position_RT: Tensor,
    visible_RT: Tensor | None,
    mask: str | Tensor,
    contexts: Sequence[Context],
    rows: Sequence[int],
    config: BagelConfig,
    dtype: torch.dtype,
) -> Attended:
    """Masks and rotary embeddings of a query, made once for all layers; see `Query` for its mask and rows.

    A token always sees itself, so that padding never makes a softmax over nothing. Where all tokens of a row see the
    same, the bias has one line for all of them; where everybody sees everything there is none.

    Args:
        visible_RT: false for padding of the query; None if there is none.
        dtype: of the layers, for biases and rotary embeddings.
    """
    length, device = position_RT.shape[1], position_RT.device
    alike = isinstance(mask, str) and (length == 1 or (mask == "full" and visible_RT is None))
    own: Tensor | None = None
    if not alike:
        own = mask if isinstance(mask, Tensor) else _own_mask(mask, visible_RT, length, device)
        own = own | torch.eye(length, dtype=torch.bool, device=device)
    parts: list[tuple[Context | None, slice, Tensor | None]] = []
    start = 0
    for context, count in zip(contexts or (None,), rows, strict=True):
        chunk = slice(start, start + count)
        start += count
        if own is None and (context is None or not context.padded):
            parts.append((context, chunk, None))
            continue
        seen = torch.ones(1, 1, length, dtype=torch.bool, device=device) if own is None else own
        seen = seen[chunk] if seen.shape[0] > 1 else seen
        lines = seen.shape[1]
        if context is not None:
            past = context.visible_RS.repeat_interleave(count // context.rows, dim=0)[:, None]
            seen = torch.cat([past.expand(-1, lines, -1), seen.expand(count, -1, -1)], dim=2)
        bias = None if own is not None and seen.all() else bias_from_mask(seen, dtype)[:, None]
        parts.append((context, chunk, bias))
    cos, sin = rotary(position_RT, config.head_size, config.rope_theta)
    return Attended(contexts=tuple(parts), cos_R1TC=cos.to(dtype), sin_R1TC=sin.to(dtype))


def _own_mask(mask: str, visible_RT: Tensor | None, length: int, device: torch.device) -> Tensor:
    """Who sees whom inside the query, bool [R, T, T]; one row where the rows are alike."""
    order = torch.ones(1, length, length, dtype=torch.bool, device=device)
    order = order.tril() if mask == "causal" else order
    return order if visible_RT is None else order & visible_RT[:, None, :]
