"""Compiled layers say what layers as they are say, and are compiled for a few kinds of calls only."""

from __future__ import annotations

import copy
import shutil
from contextlib import nullcontext

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

from project.__main__ import main
from project.models.bagel.attended import attended_by
from project.models.bagel.source import BagelCheckpoint
from project.models.context import Contexts
from project.models.lora import LoRA, adapter_parameters, adapters_as_kept, adapters_off, add_lora, keep_adapters
from project.samplers.guidance import Guidance
from tests.helpers.policies import tiny_bagel

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
@pytest.mark.slow
def test_a_layer_in_float64_with_adapters_kept_ones_and_none():
    """With checkpointing, so that the backward pass calls the compiled functions too."""
    model = model_of().double()
    add_lora(model, LoRA(rank=2, alpha=4))
    for name in ("kept", None):
        for parameter in adapter_parameters(model).values():
            torch.nn.init.normal_(parameter, std=0.2)
        if name:
            keep_adapters(model, name)
    model.double()
    layer = model.language_model.model.layers[0]
    said = []
    for state in (nullcontext(), adapters_as_kept(model, "kept"), adapters_off(model)):
        with state:
            found, wanted = (outputs_and_gradients(model, layer, compiled) for compiled in (True, False))
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
        said.append(found[0])
    assert all((said[a] - said[b]).abs().max() > 1e-3 for a, b in ((0, 1), (0, 2), (1, 2)))
    assert not counters["graph_break"]


def outputs_and_gradients(model, layer, compiled):
    torch.manual_seed(1)
    words, latents = (torch.randn(2, n, 32, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    position = torch.arange(7).expand(2, -1)
    context = model.functional_context(2)
    attended = attended_by(position, None, "causal", [context], [2], model.config, torch.float64)
    outputs = checkpoint(layer, words, latents, attended, True, compiled, use_reentrant=False)
    model.zero_grad()
    sum(output.square().sum() for output in outputs).backward()
    trained = [p.grad for p in (words, latents, *layer.parameters()) if p.grad is not None]
    return [*(output.detach() for output in outputs), *(gradient.clone() for gradient in trained)]


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
@pytest.mark.slow
def test_a_run_stays_on_policy(tmp_path):
    """Two updates of the demo: the gate stops a run whose replay does not say what its rollout said."""
    settings = [
        "--model.init_args.policy.init_args.compiled=true",
        "--trainer.max_steps=2",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.limit_val_batches=0",
        "--data.init_args.prompts_per_update=4",
        f"--run.root={tmp_path}",
    ]
    assert main(["fit", "--config=configs/shapes/demo.yaml", *settings]) == 0


def test_the_option_reaches_the_model():
    assert BagelCheckpoint("data/shapes/umm", compiled=True).outline().compiled
    assert not BagelCheckpoint("data/shapes/umm").outline().compiled
