"""Biases of a query: the same as its mask says, and none where nothing is hidden."""

from __future__ import annotations

import pytest
import torch

from project.models.bagel.attended import attended_by
from project.models.context import StaticContext
from tests.helpers.policies import tiny_bagel

ROWS, LENGTH, SLOTS = 3, 4, 5


def context(hidden):
    read = StaticContext(
        layers=1, heads=1, head_size=4, capacity=SLOTS, dtype=torch.float32, position_R=torch.zeros(ROWS).long()
    )
    visible = torch.ones(ROWS, SLOTS, dtype=torch.bool)
    visible[1, 2] = not hidden
    return read.grown([], visible, read.position_R)


def bias_of(read, mask, visible=None):
    position = torch.zeros(ROWS, LENGTH).long()
    ((_, _, bias),) = attended_by(position, visible, mask, [read], [ROWS], tiny_bagel().config, torch.float32).contexts
    return bias


def test_a_query_whose_tokens_see_everything_has_no_bias():
    assert bias_of(context(hidden=False), "full") is None


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_a_bias_says_what_an_explicit_mask_says(mask):
    order = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    explicit = (order.tril() if mask == "causal" else order).expand(ROWS, -1, -1)
    read = context(hidden=True)
    found, wanted = bias_of(read, mask), bias_of(read, explicit)
    assert found.shape[2] == (1 if mask == "full" else LENGTH)
    assert torch.equal(found.expand_as(wanted), wanted)
    assert torch.isinf(found[1, 0, :, 2]).all() and not torch.isinf(found[0, 0, :, :SLOTS]).any()


def test_padding_of_the_query_is_hidden_from_others():
    visible = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    visible[0, 3] = False
    bias = bias_of(context(hidden=False), "full", visible)
    assert torch.isinf(bias[0, 0, :3, SLOTS + 3]).all() and bias[0, 0, 3, SLOTS + 3] == 0
    assert not torch.isinf(bias[1:]).any()
