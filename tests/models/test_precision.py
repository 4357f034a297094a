"""Heads and autoencoder in fp32, whatever the precision of the rest."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from project.models.bagel.source import BagelCheckpoint
from project.models.precision import Head, stored_dtype
from project.training.trainable import prepare
from tests.helpers import ROOT

UMM = str(ROOT / "data/shapes/umm")
HEADS = {"language_model.lm_head.weight", "llm2vae.weight", "llm2vae.bias"}


def layers(kind=Head):
    torch.manual_seed(0)
    return kind(48, 30), 5 * torch.randn(7, 48)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hidden", [torch.float32, torch.bfloat16])
def test_logits_are_those_of_an_fp32_product(weights, hidden):
    head, x = layers()
    head, x = head.to(weights), x.to(hidden)
    expected = x.float() @ head.weight.float().T + head.bias.float()
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = head(x), nn.Linear.forward(head, x)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
    assert (plain.float() - expected).abs().max() > 1e-2, "proves nothing: the narrow product is as good"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_runs_are_the_same_to_the_bit(dtype):
    head, x = layers()
    head, x = head.to(dtype), x.to(dtype).requires_grad_()
    results = [kind.forward(head, x) for kind in (Head, nn.Linear)]
    assert torch.equal(*results) and results[0].dtype == dtype
    gradients = [torch.autograd.grad(result.square().sum(), (x, head.weight)) for result in results]
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_gradients_go_through_in_the_format_of_the_input():
    head, x = layers()
    x = x.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        head(x).sum().backward()
    assert x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(x.grad.float(), head.weight.sum(0).expand(7, -1), rtol=1e-2, atol=1e-2)


def test_only_heads_are_stored_wide():
    assert stored_dtype(Head(2, 2), torch.bfloat16) == torch.float32
    assert stored_dtype(Head(2, 2), torch.float64) == torch.float64
    assert stored_dtype(nn.Linear(2, 2), torch.bfloat16) == torch.bfloat16


@pytest.mark.parametrize("how", ["file", "random", "outline"])
def test_a_bf16_base_keeps_its_heads_in_fp32(how):
    source = BagelCheckpoint(UMM, dtype="bfloat16", random_weights=how == "random")
    model = source.outline() if how == "outline" else source.load()
    assert {name for name, p in model.named_parameters() if p.dtype == torch.float32} == HEADS
    assert model.dtype == torch.bfloat16, "caches have the format of the layers"
    if how == "file":
        file = load_file(f"{UMM}/ema.safetensors")
        for name in HEADS:
            assert torch.equal(model.state_dict()[name], file[name].float()), "the file's numbers, not rounded to bf16"


def test_the_autoencoder_is_never_narrower_than_fp32():
    model = BagelCheckpoint(UMM, dtype="bfloat16").load()
    before = copy.deepcopy(model.autoencoder.state_dict())
    for narrow in (model.to(torch.bfloat16), model.half()):
        after = narrow.autoencoder.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(p.dtype == torch.float64 for p in model.double().autoencoder.parameters())
    assert all(p.device.type == "meta" for p in model.to("meta").autoencoder.parameters())


def test_pictures_are_encoded_in_fp32_in_mixed_precision():
    model = BagelCheckpoint(UMM).load()
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    expected = model.encode_image(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.encode_image(pixels), expected)


def test_trained_heads_are_trained_as_before():
    model = prepare(BagelCheckpoint(UMM).load(), None)
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if name in HEADS)
