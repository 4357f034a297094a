"""Compiled layers say what layers as they are say, and are compiled for a few kinds of calls only."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from project.models.bagel.attended import attended_by
from project.models.bagel.source import BagelCheckpoint
from project.models.context import Contexts
from project.models.lora import LoRA, adapters_as_kept, adapters_off, add_lora, keep_adapters
from project.samplers.guidance import Guidance
from tests.helpers.policies import TinyBagel, tiny_bagel

COMPILER = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("cc")), reason="torch.compile needs a compiler")


def model_of(seed=0):
    torch.manual_seed(seed)
    return tiny_bagel()


def graphs():
    return counters["stats"]["unique_graphs"]


def made(model, kind, rows=3, length=5, guided=True):
    """Velocities and logits in contexts of texts with padding, and the gradients where there are any."""
    model.zero_grad()
    ids_RT = torch.arange(rows * length).view(rows, length) % 20 + 1
    visible_RT = torch.ones_like(ids_RT, dtype=torch.bool)
    visible_RT[0, length // 2 + 1 :] = False
    free = model.static_context(rows, 2 * length) if kind == "static" else model.functional_context(rows)
    main = model.append_tokens(free.select(torch.arange(rows), room=2 * length + 20), ids_RT, visible_RT)
    free = model.append_tokens(free.select(torch.arange(rows), room=20), ids_RT[:, :1])
    grid = model.latent_grid(8, 8)
    states = torch.randn(rows, 1, grid[0] * grid[1], model.latent_size, generator=torch.Generator().manual_seed(1))
    guidance = Guidance(text=2.0 if guided else 1.0)
    velocity = model.velocity(states, torch.tensor([0.7]), Contexts(main=main, text_free=free), guidance, grid)
    logits = model.first_token_log_probs(main)
    gradients = {}
    if velocity.requires_grad:
        (velocity.square().sum() + logits[:, 3].sum()).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"velocity": velocity.detach(), "logits": logits.detach(), **gradients}


def same_when_compiled(model, kind, relative=1e-5, **sizes):
    with torch.set_grad_enabled(kind == "functional"):
        model.compiled = False
        wanted = made(model, kind, **sizes)
        model.compiled = True
        found = made(model, kind, **sizes)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        largest = tensor.abs().max()
        assert largest > 0, name
        assert (found[name] - tensor).abs().max() <= relative * largest, name


@COMPILER
def test_a_layer_in_float64():
    model = model_of().double()
    layer = model.language_model.model.layers[0]
    results = []
    for compiled in (False, True):
        torch.manual_seed(1)
        words, latents = (torch.randn(2, n, 32, dtype=torch.float64, requires_grad=True) for n in (3, 4))
        context = model.functional_context(2)
        position = torch.arange(7).expand(2, -1)
        attended = attended_by(position, None, "causal", [context], [2], model.config, torch.float64)
        outputs = layer(words, latents, attended, True, compiled)
        model.zero_grad()
        sum(output.square().sum() for output in outputs).backward()
        gradients = [p.grad.clone() for p in (words, latents, *layer.parameters())]
        results.append([*(output.detach() for output in outputs), *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@COMPILER
def test_rollout_and_replay_are_the_same_and_other_sizes_compile_nothing():
    model = model_of()
    for kind in ("static", "functional"):
        same_when_compiled(model, kind)
        known = graphs()
        for rows, length in ((2, 2), (5, 5), (4, 9), (16, 4)):
            same_when_compiled(model, kind, rows=rows, length=length)
            same_when_compiled(model, kind, rows=rows, length=length, guided=False)
        assert graphs() == known
    model.gradient_checkpointing = True
    same_when_compiled(model, "functional")
    same_when_compiled(copy.deepcopy(model), "functional")
    assert graphs() <= known + 2
    assert not counters["graph_break"]


@COMPILER
def test_adapters_kept_ones_and_none():
    model = model_of()
    add_lora(model, LoRA(rank=2, alpha=4))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.2)
    keep_adapters(model, "kept")
    for name, parameter in model.named_parameters():
        if ".lora_A.default" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.gradient_checkpointing = True
    same_when_compiled(model, "functional", rows=2)
    same_when_compiled(model, "static", rows=2)
    with torch.no_grad():
        said = [made(model, "static", rows=2)["velocity"]]
    for other in (adapters_as_kept(model, "kept"), adapters_off(model)):
        with other, torch.no_grad():
            same_when_compiled(model, "static", rows=2)
            said.append(made(model, "static", rows=2)["velocity"])
    assert all((said[a] - said[b]).abs().max() > 1e-3 for a, b in ((0, 1), (0, 2), (1, 2)))
    assert not counters["graph_break"]


def test_the_option_reaches_the_model():
    assert BagelCheckpoint("data/shapes/umm", compiled=True).outline().compiled
    assert not BagelCheckpoint("data/shapes/umm").outline().compiled
