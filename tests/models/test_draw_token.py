"""Drawing a token, by hand."""

from __future__ import annotations

import pytest
import torch

from project.models import text
from project.models.text import draw_token

LOG_PROB = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()[None]


@pytest.mark.parametrize(
    ("top_p", "uniform", "token"),
    [
        # likeliest first: tokens 1, 3, 0, 2 with .5, .3, .15, .05
        (1.0, 0.49, 1), (1.0, 0.51, 3), (1.0, 0.79, 3), (1.0, 0.81, 0), (1.0, 0.96, 2),
        # the smallest set that holds .6 is {1, 3}: their shares are .625 and .375
        (0.6, 0.62, 1), (0.6, 0.63, 3), (0.6, 0.9999, 3),
        (0.45, 0.9999, 1),
        (0.85, 0.52, 1), (0.85, 0.9999, 0),
    ],
)  # fmt: skip
def test_the_likeliest_tokens_share_the_whole_probability(top_p, uniform, token):
    assert draw_token(LOG_PROB, torch.tensor([uniform]), greedy=False, top_p=top_p).tolist() == [token]


def test_greedy_takes_the_likeliest():
    assert draw_token(LOG_PROB, torch.tensor([0.99]), greedy=True, top_p=1.0).tolist() == [1]


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_a_large_vocabulary_is_drawn_from_as_if_it_were_sorted(monkeypatch, top_p, spread):
    """Ties, and sets of likeliest tokens that are larger than what is looked at first, included."""
    torch.manual_seed(0)
    log_prob = torch.log_softmax((torch.randn(64, 300) * spread).round(decimals=1), -1)
    numbers = torch.rand(64)
    monkeypatch.setattr(text, "LIKELIEST", 1000)
    sorted_whole = draw_token(log_prob, numbers, greedy=False, top_p=top_p)
    monkeypatch.setattr(text, "LIKELIEST", 40)
    assert torch.equal(draw_token(log_prob, numbers, greedy=False, top_p=top_p), sorted_whole)


def test_few_likely_tokens_are_found_without_sorting_all(monkeypatch):
    monkeypatch.setattr(text, "LIKELIEST", 8)
    log_prob = torch.log_softmax(torch.arange(100.0), -1)[None]
    _, order, sure = text._likeliest(log_prob.exp(), 0.9)
    assert sure and order[0, :3].tolist() == [99, 98, 97]
    assert not text._likeliest(torch.full((1, 100), 0.01), 0.9)[2]


def test_without_asking_it_says_whether_the_likeliest_were_enough(monkeypatch):
    monkeypatch.setattr(text, "LIKELIEST", 8)
    peaked, flat = torch.log_softmax(torch.arange(100.0), -1)[None], torch.zeros(1, 100).log_softmax(-1)
    half = torch.tensor([0.5])
    token, sure = text.draw_likely_token(peaked, half, greedy=False, top_p=0.9)
    assert sure and token.tolist() == draw_token(peaked, half, greedy=False, top_p=0.9).tolist() == [99]
    token, sure = text.draw_likely_token(flat, half, greedy=False, top_p=0.9)
    assert not sure and token.tolist() != draw_token(flat, half, greedy=False, top_p=0.9).tolist()
    assert text.draw_likely_token(flat, half, greedy=False, top_p=1.0)[1] is None, "all are looked at"
