"""Texts are the same however seldom the device is asked whether they have ended."""

from __future__ import annotations

import pytest
import torch

from project.models import text
from project.models.cached_transformer import CachedTransformer
from project.models.context import Context
from project.planning.waiting import Waits
from tests.helpers.policies import dense_model, tiny_bagel

ROWS, LIMIT = 5, 21


@pytest.fixture(params=[tiny_bagel, dense_model], ids=["bagel", "dense"])
def model(request):
    torch.manual_seed(0)
    return request.param()


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def ended_by(model, chance, peaked=1.0):
    """The model, whose texts end at any token with this chance; `peaked` multiplies its logits."""
    forward = type(model).forward

    def often_ended(self, query, contexts=()):
        output = forward(self, query, contexts)
        if query.logits is not None:
            output.logits.mul_(peaked)
            others = output.logits.logsumexp(-1)
            output.logits[..., self.special.text_end] = others + torch.tensor(chance / (1 - chance)).log()
        return output

    model.__class__ = type(type(model).__name__, (type(model),), {"forward": often_ended})
    return model


def begun(model, kind="static", padded=False):
    """A context that has read a prompt; with padding, prompts of different lengths."""
    room = model.text_room(3) + model.text_room(LIMIT) + model.latent_room(model.latent_grid(8, 8))
    empty = model.static_context(ROWS, room) if kind == "static" else model.functional_context(ROWS)
    return model.append_text(empty, [torch.tensor([5, 6, 7][: 1 + n % 3 if padded else 3]) for n in range(ROWS)])


def written(model, monkeypatch, together, kind="static", padded=False, **how):
    monkeypatch.setattr(CachedTransformer, "_tokens_per_question", together)
    numbers = torch.rand(ROWS, LIMIT, generator=torch.Generator().manual_seed(4))
    return model.sample_text(begun(model, kind, padded), numbers, **how)


def read_later(model, context):
    """What is computed from a context: a velocity, which reads all of it."""
    grid = model.latent_grid(8, 8)
    latents = torch.randn(ROWS, grid[0] * grid[1], model.latent_size, generator=torch.Generator().manual_seed(5))
    query, _ = model._latent_query(context, latents, torch.full((ROWS,), 0.5), grid)
    return model(query, [context]).velocity_RLD


def same(model, found, expected):
    (context, sampled), (expected_context, expected_sampled) = found, expected
    for name in ("ids_RT", "log_prob_RT", "entropy_RT", "length_R", "finished_R"):
        assert torch.equal(getattr(sampled, name), getattr(expected_sampled, name)), name
    assert torch.equal(context.visible_RS, expected_context.visible_RS)
    assert torch.equal(context.position_R, expected_context.position_R)
    assert context.padded == expected_context.padded == (not bool(context.visible_RS.all()))
    assert torch.equal(read_later(model, context), read_later(model, expected_context))


@pytest.mark.parametrize("kind", ["static", "functional"])
@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
@pytest.mark.parametrize("chance", [1e-6, 0.1, 0.5, 1 - 1e-6])
def test_any_number_of_tokens_between_two_questions_writes_the_same(model, monkeypatch, kind, padded, chance):
    model = ended_by(model, chance)
    expected = written(model, monkeypatch, 1, kind, padded)
    lengths = expected[1].length_R.tolist()
    ends = {1e-6: [LIMIT] * ROWS, 1 - 1e-6: [1] * ROWS}.get(chance)
    assert lengths == ends if ends else len(set(lengths)) > 1, "together, at the limit, or at different times"
    for together in (2, 3, 8, 100):
        same(model, written(model, monkeypatch, together, kind, padded), expected)


def test_texts_of_one_length_leave_no_padding(model, monkeypatch):
    context, sampled = written(ended_by(model, 1 - 1e-6), monkeypatch, 8)
    assert sampled.length_R.tolist() == [1] * ROWS
    assert not context.padded and context.slots == model.text_room(3) + model.text_room(0)


@pytest.mark.parametrize("peaked", [0.0, 2.0, 100.0], ids=["flat", "in between", "peaked"])
def test_few_likely_tokens_may_turn_out_to_be_too_few(model, monkeypatch, peaked):
    monkeypatch.setattr(text, "LIKELIEST", 6)
    model = ended_by(model, 0.1, peaked)
    expected = written(model, monkeypatch, 1, top_p=0.8)
    for together in (3, 8, 100):
        same(model, written(model, monkeypatch, together, top_p=0.8), expected)


def test_a_row_that_has_ended_needs_no_mask_but_what_comes_next_does(model, monkeypatch):
    """The masks are asked for by the tests above: texts of different lengths, read by what is drawn."""
    asked, grown = [], type(begun(model)).grown

    def noted(self, *args):
        asked.append(self.padded)
        return grown(self, *args)

    monkeypatch.setattr(type(begun(model)), "grown", noted)
    context, sampled = written(ended_by(model, 0.3), monkeypatch, 1)
    assert len(set(sampled.length_R.tolist())) > 1
    writing = 1 + int(sampled.length_R.max())
    assert asked[:writing] == [False] * writing and context.padded, "the prompt, and a token at a time"


def waits(model, monkeypatch, together, **how):
    """How often the host waits for the device while a text of the full length is written."""
    found = []
    monkeypatch.setattr(Context, "padded", property(lambda self: not bool(self.visible_RS.all())))
    with Waits(lambda place, function: found.append((place, function))):
        _, sampled = written(model, monkeypatch, together, **how)
    assert sampled.length_R.tolist() == [LIMIT] * ROWS
    return len(found)


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_the_host_waits_once_for_several_tokens(monkeypatch, top_p):
    """Three questions more or less do not depend on the length."""
    monkeypatch.setattr(text, "LIKELIEST", 6)
    model = ended_by(tiny_bagel(), 1e-6, peaked=100.0)
    questions = {together: waits(model, monkeypatch, together, top_p=top_p) for together in (1, 7, 21)}
    assert questions[1] - questions[21] >= LIMIT - 2
    assert questions[7] - questions[21] == 2


def test_a_context_knows_its_padding_after_the_rows_have_ended_and_when_it_goes_back():
    model = tiny_bagel()
    context, start = begun(model), begun(model).position_R
    one, ended = torch.full((ROWS, 1), 5), (torch.arange(ROWS) > 0)[:, None]
    with context.rows_end():
        model.append_tokens(context, one, ended)
        assert not context.padded, "nobody asks"
    assert context.padded
    context.back_to(context.slots - 1, start)
    assert not context.padded and torch.equal(context.position_R, start)
