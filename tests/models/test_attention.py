"""Attention of either path against the definition."""

from __future__ import annotations

import math

import pytest
import torch

from project.models import attention as module
from project.models.attention import attention, bias_from_mask


def by_definition(q, k, v, bias):
    """Every query head looks at its own copy of the key head that it shares."""
    copies = q.shape[1] // k.shape[1]
    k, v = (torch.stack([x[:, head // copies] for head in range(q.shape[1])], dim=1) for x in (k, v))
    logits = torch.einsum("rhtc,rhsc->rhts", q, k) / math.sqrt(q.shape[-1])
    return torch.softmax(logits if bias is None else logits + bias, dim=-1) @ v


@pytest.mark.parametrize("size", [16, 128])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_shared_heads_and_masks(size, heads, masked):
    """16 values a head go through plain products on a CPU, 128 through torch's kernels."""
    queries, keys = heads
    q, k, v = (torch.randn(3, n, length, size) for n, length in ((queries, 5), (keys, 7), (keys, 7)))
    bias = bias_from_mask(torch.rand(3, 1, 5, 7) < 0.6) if masked else None
    if bias is not None:
        bias[..., 0] = 0.0
    torch.testing.assert_close(attention(q, k, v, bias), by_definition(q, k, v, bias), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("masked", "expected"), [(False, (2, True)), (True, (4, False))])
def test_masked_keys_are_repeated_for_the_fast_kernel(monkeypatch, masked, expected):
    """On CUDA a mask and `enable_gqa` together take the kernel that holds every score."""
    called = []

    def recorded(q, k, v, attn_mask, enable_gqa):
        called.append((k.shape[1], enable_gqa))
        return q

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", recorded)
    q, k = torch.randn(1, 4, 3, 128), torch.randn(1, 2, 3, 128)
    attention(q, k, k, torch.zeros(1, 1, 3, 3) if masked else None)
    assert called == [expected]


def test_repeating_changes_no_bit():
    q, k, v = torch.randn(2, 4, 5, 128), torch.randn(2, 2, 7, 128), torch.randn(2, 2, 7, 128)
    bias = bias_from_mask(torch.rand(2, 1, 5, 7) < 0.8)
    bias[..., 0] = 0.0
    shared = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, enable_gqa=True)
    assert torch.equal(attention(q, k, v, bias), shared)
