"""Small policies for the contracts on rollout and replay: BAGEL's architecture, and a dense one unlike it."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.policies import dense_model, tiny_bagel


@pytest.fixture(params=["bagel", "dense"])
def model(request):
    torch.manual_seed(0)
    return tiny_bagel() if request.param == "bagel" else dense_model()


@pytest.fixture
def seeing_model():
    """The one that reads pictures."""
    torch.manual_seed(0)
    return tiny_bagel()
