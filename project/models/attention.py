"""Attention behind one function, so that a faster kernel is a change in one place."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_SMALL_HEADS = 64
"""Up to this head size plain matrix products beat scaled_dot_product_attention with a mask on a CPU."""


def attention(query_RHTC: Tensor, key_RKSC: Tensor, value_RKSC: Tensor, bias_R1TS: Tensor | None) -> Tensor:
    """Softmax attention of T query tokens over S keys, [R, heads, T, C].

    Args:
        query_RHTC, key_RKSC, value_RKSC: C values per head; the K key heads are shared by groups of H / K query
            heads.
        bias_R1TS: added to the logits: 0 where a query may look, -inf elsewhere; None = everywhere. Every query
            token must see at least one key.
    """
    groups = query_RHTC.shape[1] // key_RKSC.shape[1]
    plain = query_RHTC.is_cpu and query_RHTC.shape[-1] <= _SMALL_HEADS
    # With a mask and shared heads CUDA would fall back to a kernel that holds all scores: repeat the few key heads.
    if groups > 1 and (plain or bias_R1TS is not None):
        key_RKSC, value_RKSC = (x.repeat_interleave(groups, dim=1) for x in (key_RKSC, value_RKSC))
        groups = 1
    if plain:
        # One product scales as it multiplies, so no scaled copy of the queries is made.
        logits = torch.baddbmm(
            query_RHTC.new_zeros(1, 1, 1),
            query_RHTC.flatten(0, 1),
            key_RKSC.flatten(0, 1).transpose(1, 2),
            beta=0,
            alpha=1 / math.sqrt(query_RHTC.shape[-1]),
        ).unflatten(0, query_RHTC.shape[:2])
        if bias_R1TS is not None:
            logits.add_(bias_R1TS)
        return torch.softmax(logits, dim=-1).to(value_RKSC.dtype) @ value_RKSC
    bias = None if bias_R1TS is None else bias_R1TS.to(query_RHTC.dtype)
    return F.scaled_dot_product_attention(query_RHTC, key_RKSC, value_RKSC, attn_mask=bias, enable_gqa=groups > 1)


def bias_from_mask(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """0 where `mask` is true and -inf where it is false, of the same shape."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -math.inf)
