"""Dealing samples to ranks, and what ranks tell each other."""

from __future__ import annotations

import pytest
import torch

from project.core.ranks import ALONE, Ranks
from tests.helpers.threads import on_ranks


@pytest.mark.parametrize(("number", "size"), [(448, 7), (448, 56), (56, 3), (2, 3), (0, 2), (5, 1)])
def test_shares_are_even_and_everything_is_dealt_once(number, size):
    shares = [Ranks(rank=rank, size=size).share(number) for rank in range(size)]
    assert [n for share in shares for n in share] == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_single_process_asks_nobody():
    assert ALONE.gather("mine") == ["mine"]
    numbers, nothing = ALONE.whole(torch.tensor([1.0, 2.0]), None)
    assert numbers.tolist() == [1.0, 2.0] and nothing is None


def test_parts_become_whole_on_every_rank():
    def part(ranks):
        mine = torch.arange(7.0)[ranks.share(7).start : ranks.share(7).stop]
        return ranks.whole(mine, None, mine > 3)

    for numbers, nothing, large in on_ranks(3, part):
        assert numbers.tolist() == list(range(7)) and nothing is None
        assert large.tolist() == [n > 3 for n in range(7)]
