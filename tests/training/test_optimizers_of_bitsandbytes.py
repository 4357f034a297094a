"""8-bit and paged optimizers by class: they go on exactly, and say where they do not fit."""

from __future__ import annotations

import os

import bitsandbytes
import pytest
import torch

from project.callbacks.checkpoint import SaveLast
from project.datamodule import PromptLoader
from project.training.trainable import optimizer_over
from tests.helpers.policies import TinyBagel
from tests.helpers.tiny_module import PROMPTS, make_module, train


def adam_8bit(parameters):
    return bitsandbytes.optim.AdamW8bit(parameters, lr=1e-3, min_8bit_size=256)


def tensors(values, name=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from tensors(value, f"{name}/{key}")
        else:
            yield f"{name}/{key}", torch.as_tensor(value)


def test_8_bit_goes_on_exactly(tmp_path):
    def run(name, updates, resume=None):
        module = make_module(optimizer=adam_8bit, num_generations=2, policy=TinyBagel())
        loader = PromptLoader(PROMPTS, prompts_per_update=1, seed=1)
        train(module, updates=updates, loader=loader, callbacks=[SaveLast(every_n_updates=1)], ckpt_path=resume,
              enable_checkpointing=True, default_root_dir=tmp_path / name)  # fmt: skip
        return torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)

    whole = run("whole", 4)
    run("parts", 2)
    parts = run("parts", 4, resume=tmp_path / "parts/checkpoints/last.ckpt")
    states = [saved["optimizer_states"][0]["state"] for saved in (whole, parts)]
    ours, theirs = (dict(tensors(state)) for state in states)
    assert any(value.dtype == torch.uint8 and name.endswith("state1") for name, value in ours.items())
    assert ours.keys() == theirs.keys() and all(torch.equal(theirs[name], value) for name, value in ours.items())
    assert all(torch.equal(parts["state_dict"][name], weight) for name, weight in whole["state_dict"].items())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_paged_one_says_that_there_is_no_gpu(caplog, recwarn):
    layer = torch.nn.Linear(80, 80)
    optimizer = optimizer_over(layer, bitsandbytes.optim.PagedAdamW8bit, {})
    assert "PagedAdamW8bit moves its state between the memory of a GPU" in caplog.text
    layer(torch.ones(80)).sum().backward()
    before = layer.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, layer.weight)


@pytest.fixture
def _alone():
    """Leaves no process group behind."""
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("_alone")
def test_they_cannot_work_on_weights_that_are_shared_out():
    with pytest.raises(ValueError, match=r"AdamW8bit of bitsandbytes.*fsdp2 take torch.optim.AdamW.*or set .* to ddp"):
        train(make_module(optimizer=adam_8bit, policy=TinyBagel()), updates=1, strategy="fsdp2", devices=1)


@pytest.mark.usefixtures("_alone")
def test_one_process_shares_out_nothing_and_works():
    module = make_module(policy=TinyBagel(), num_generations=2)
    train(module, updates=1, strategy="fsdp2", devices=1)
    assert module.updates == 1
