"""A local vision-language model that writes: tiny ones with random weights, from their files."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from project.judges.free_text import FreeText, FreeTextRequest
from project.judges.transformers_free_text import TransformersFreeTextJudge

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((64, 64), (96, 64), (32, 160))]


def judge_of(folder: str, **arguments: Any) -> TransformersFreeTextJudge:
    return TransformersFreeTextJudge(folder, **{"dtype": "float32", "max_tokens": 64, **arguments})


def request(text: str, *numbers: int, attempt: int = 0) -> FreeTextRequest:
    return FreeTextRequest(text=text, pictures=tuple(PICTURES[n] for n in numbers), attempt=attempt)


REQUESTS = [
    request("Score it, please.", 0),
    request("a", 1),
    request("Compare the two.", 0, 1),
    request("Say yes."),
    request("Compare the two.", 1, 0),
    request("Score this one.", 2),
    request("Score it, please.", 0, attempt=1),
    request("Score it, please.", 0, attempt=2),
]


def test_a_batch_writes_what_is_written_one_by_one(vlm: str) -> None:
    judge = judge_of(vlm)
    judge.preflight()
    together = judge.write(REQUESTS)
    assert together == [answer for one in REQUESTS for answer in judge.write([one])]
    assert together == judge_of(vlm, batch_size=1).write(REQUESTS)
    assert all(isinstance(answer, FreeText) for answer in together) and len(set(together)) > 4
    orders = judge.write([request("Compare them.", *order) for order in itertools.permutations(range(3))])
    assert len(set(orders)) > 1, "the order of the pictures does not matter"
    assert judge.write([]) == []


def test_further_attempts_are_drawn_by_their_seed_and_move_nothing_else(vlm: str) -> None:
    judge = judge_of(vlm, retry_temperature=5.0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    drawn = judge.write([request("Score it.", 0, attempt=n) for n in range(1, 7)])
    assert torch.equal(torch.rand(1), expected)
    assert len({answer.text for answer in drawn if answer}) > 1
    torch.manual_seed(4)
    assert judge.write([request("Score it.", 0, attempt=n) for n in range(1, 7)]) == drawn


def test_greedy_is_greedy_whatever_the_model_says(vlm: str) -> None:
    """The files of a model hold defaults for sampling."""
    judge = judge_of(vlm)
    model = judge._ready().model
    assert model.generation_config.repetition_penalty == 1.05
    before = judge.write(REQUESTS[:3])
    model.generation_config.repetition_penalty = 50.0
    assert judge.write(REQUESTS[:3]) == before


def test_a_text_that_does_not_end_is_cut_off(vlm: str) -> None:
    judge = judge_of(vlm, max_tokens=3)
    judge._ready().model.generation_config.eos_token_id = None
    assert [answer.cut_off for answer in judge.write(REQUESTS[:2]) if answer] == [True, True]
    with pytest.raises(ValueError, match="no end within 3 tokens: raise max_tokens"):
        judge.preflight()


def test_bad_input_is_refused(vlm: str) -> None:
    for wrong in ({"batch_size": 0}, {"max_tokens": 0}, {"retry_temperature": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            judge_of(vlm, **wrong)
    with pytest.raises(ValueError, match="give uint8"):
        judge_of(vlm).write([FreeTextRequest(text="a", pictures=(PICTURES[0].astype(float),))])
    names = {judge_of(vlm, **change).name for change in ({}, {"max_tokens": 9}, {"retry_temperature": 1.0})}
    assert len(names) == 3
