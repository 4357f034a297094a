"""After the last layer only logits read the understanding stream: nothing of it is computed for anybody else."""

from __future__ import annotations

import pytest
import torch

from project.models.bagel.layers import DecoderLayer
from project.models.context import Contexts
from project.samplers.guidance import Guidance
from tests.helpers.policies import tiny_bagel


def made(model, kind, checkpointing=False):
    """Velocities in a context that was read without logits, and the loss's gradients where there are any."""
    model.zero_grad()
    model.gradient_checkpointing = checkpointing
    ids_RT = torch.tensor([[1, 2, 3], [4, 5, 6]])
    empty = model.static_context(2, 30) if kind == "static" else model.functional_context(2)
    free = model.append_tokens(empty, ids_RT)
    main = model.append_tokens(free.select(torch.arange(2), room=20), ids_RT + 1)
    contexts = Contexts(main=main, text_free=free.select(torch.arange(2), room=20))
    grid = model.latent_grid(8, 8)
    states = torch.randn(2, 1, grid[0] * grid[1], model.latent_size, generator=torch.Generator().manual_seed(1))
    velocity = model.velocity(states, torch.tensor([0.7]), contexts, Guidance(text=2.0), grid)
    logits = model.first_token_log_probs(main)
    gradients = {}
    if velocity.requires_grad:
        (velocity.square().sum() + logits[:, 3].sum()).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return velocity.detach(), logits.detach(), gradients


@pytest.mark.parametrize(("kind", "checkpointing"), [("static", False), ("functional", False), ("functional", True)])
def test_what_nobody_reads_is_not_computed(monkeypatch, kind, checkpointing):
    torch.manual_seed(0)
    model = tiny_bagel()
    fed = []
    last = model.language_model.model.layers[-1]
    last.mlp.register_forward_hook(lambda module, arguments, output: fed.append(arguments[0].shape[1]))
    with torch.set_grad_enabled(kind == "functional"):
        skipped = made(model, kind, checkpointing)
        assert set(fed) == {1}, "the one token that logits were asked of"
        fed.clear()
        forward = DecoderLayer.forward
        monkeypatch.setattr(
            DecoderLayer, "forward", lambda self, und, gen, attended, *_: forward(self, und, gen, attended)
        )
        whole = made(model, kind, checkpointing)
        assert len(set(fed)) > 1
    for mine, theirs in zip(skipped[:2], whole[:2], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
    assert skipped[2].keys() == whole[2].keys()
    for name, gradient in whole[2].items():
        torch.testing.assert_close(skipped[2][name], gradient, atol=1e-5, rtol=1e-5, msg=name)
