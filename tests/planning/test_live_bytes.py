"""Bytes that are held while a block runs, on the CPU and on the meta device alike."""

from __future__ import annotations

import pytest
import torch

from project.planning.live_bytes import LiveBytes


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_storages_count_once_and_until_they_go(device):
    x = torch.zeros(100, 10, device=device)
    with LiveBytes() as held:
        y = x + 1
        assert held.now == 4000
        view = y.view(-1)[:5]
        y.add_(1)
        assert held.now == 4000, "views and work in place hold nothing new"
        z = y * 2
        del y, z
        assert (held.now, held.peak) == (4000, 8000), "a view keeps its storage"
        del view
    assert (held.now, held.peak) == (0, 8000)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_autograd_keeps_is_held(device):
    layer = torch.nn.Linear(10, 10, bias=False, device=device)
    with LiveBytes() as held:
        loss = layer(torch.ones(5, 10, device=device)).square().sum()
        kept = held.now
        loss.backward()
        del loss
    # Input (100 values are the gradient's), product, ones; then the gradient alone.
    assert kept == 4 * (50 + 50 + 1) and held.now == 4 * 100
