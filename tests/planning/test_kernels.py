"""`plan --trace`: kernels counted by hand, compared with torch's compiler, and of whole steps."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from project.__main__ import main
from project.models.bagel.layers import MLP, RMSNorm, _after
from project.models.fused import fused
from project.models.lora import LoRA, add_lora
from project.planning.as_on_a_gpu import as_on_a_gpu, backward
from project.planning.kernels import Kernel, Kernels

ROWS, HIDDEN, INNER = 6, 8, 20
X, Y, W = ROWS * HIDDEN, ROWS * INNER, HIDDEN * INNER


def counted(run, autocast=False, grad=False, adapters=0):
    counter = Kernels(adapters)
    with torch.set_grad_enabled(grad), torch.device("meta"), as_on_a_gpu(counter, autocast):
        run()
    found = {}
    for kernel in counter.kernels:
        found.setdefault(kernel.kind, []).append(kernel)
    return found


def mlp(dtype=torch.float32, trained=False):
    return MLP(HIDDEN, INNER).to("meta", dtype).requires_grad_(trained)


def test_an_mlp_by_hand():
    network, x = mlp(), torch.empty(ROWS, HIDDEN, device="meta")
    found = counted(lambda: network(x))
    assert [k.flops for k in found["products"]] == [2 * ROWS * HIDDEN * INNER] * 3
    assert [k.moved for k in found["products"]] == [4 * (X + W + Y)] * 3
    assert [k.moved for k in found["elementwise"]] == [4 * 2 * Y, 4 * 3 * Y], "silu in place, times up in place"
    fast = counted(lambda: fused(MLP.forward)(network, x))
    assert fast["products"] == found["products"] and fast.keys() == {"products", "fused"}
    assert [k.moved for k in fast["fused"]] == [4 * 3 * Y], "gate and up are read, their product is written"


def test_the_backward_pass_of_an_mlp_by_hand():
    network = mlp()
    x = torch.empty(ROWS, HIDDEN, device="meta", requires_grad=True)

    def run():
        y = fused(MLP.forward)(network, x)
        backward([y], [torch.empty_like(y)])

    found = counted(run, grad=True)
    assert len(found["products"]) == 6, "frozen weights have no gradient"
    # Forward: silu(gate) * up. Backward: the gradients of gate and of up, each of gate, up and the gradient of both;
    # then the sum of both gradients of the input.
    assert sorted(k.moved for k in found["fused"]) == sorted([4 * 3 * Y, 4 * 4 * Y, 4 * 3 * Y, 4 * 3 * X])


def test_checkpointing_makes_it_again():
    network = mlp()
    x = torch.empty(ROWS, HIDDEN, device="meta", requires_grad=True)

    def run():
        y = checkpoint(fused(MLP.forward), network, x, use_reentrant=False)
        backward([y], [torch.empty_like(y)])

    assert len(counted(run, grad=True)["products"]) == 9


def test_norms_are_one_kernel_and_mixed_precision_copies_no_narrow_input():
    norm = RMSNorm(HIDDEN, 1e-6).to("meta", torch.bfloat16)
    narrow, wide = (torch.empty(ROWS, HIDDEN, device="meta", dtype=d) for d in (torch.bfloat16, torch.float32))
    found = counted(lambda: norm(narrow), autocast=True)
    assert {kind: [k.moved for k in some] for kind, some in found.items()} == {
        "norms": [2 * 2 * X],
        "elementwise": [2 * (2 * X + HIDDEN)],
    }
    assert len(counted(lambda: norm(wide), autocast=True)["norms"]) == 1


def test_adapters_copy_no_input_under_mixed_precision():
    network = nn.Sequential(nn.Linear(HIDDEN, INNER, bias=False))
    add_lora(network, LoRA(rank=2, alpha=4, target="0"))
    network[0].base_layer.to(torch.bfloat16)
    network.to("meta")
    x = torch.empty(ROWS, HIDDEN, device="meta", dtype=torch.bfloat16)
    found = counted(lambda: network(x), autocast=True, adapters=2)
    assert len(found["products"]) == 1 and len(found["adapters"]) == 2
    assert [k.moved for k in found["casts"]] == [6 * 2 * HIDDEN, 6 * 2 * INNER], "A and B alone"


def test_a_kernel_takes_the_longer_of_both():
    assert Kernel("products", 100, 10).seconds(50, 10) == 2
    assert Kernel("products", 100, 40).seconds(50, 10) == 4


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("cc")), reason="torch.compile needs a compiler")
def test_what_is_fused_moves_what_the_kernels_of_torch_move():
    """A stream after attention, of static sizes: inductor counts the bytes of every kernel, those of products too."""
    from torch._inductor import metrics
    from torch._inductor.compile_fx import inductor_metrics_log as log

    rows, hidden, inner = 64, 96, 256
    o_proj, norm = nn.Linear(hidden, hidden, bias=False), RMSNorm(hidden, 1e-6)
    network = MLP(hidden, inner)
    x, seen = torch.randn(1, rows, hidden), torch.randn(1, rows, 4, hidden // 4)
    level, disabled = log.level, log.disabled
    metrics.reset()
    log.setLevel(logging.INFO)
    log.disabled = False
    try:
        with torch.no_grad(), torch._inductor.config.patch(fx_graph_cache=False):
            torch.compile(_after, dynamic=False)(x, seen, o_proj, norm, network)
    finally:
        log.setLevel(level)
        log.disabled = disabled
    parts = [part.to("meta") for part in (x, seen, o_proj, norm, network)]
    found = counted(lambda: fused(_after)(*parts))
    ours = sum(kernel.moved for some in found.values() for kernel in some)
    assert ours == metrics.num_bytes_accessed > 0


def test_the_steps_of_a_configuration(tmp_path, capsys):
    def traced(*more):
        file = tmp_path / "plan.json"
        speeds = ["--peak-tflops", "100", "--bandwidth", "1000", "--trace", "--json", str(file)]
        assert main(["plan", "--config", "configs/shapes/demo.yaml", *speeds, *more]) == 0
        return json.loads(file.read_text())

    plan = traced()
    token, guided, replay = plan["trace"]
    printed = capsys.readouterr().out
    assert "a text token of" in printed and "ms/products" in printed
    work = plan["work"]
    rows = work["prompts_per_forward"] * work["group"]
    assert token["name"] == f"a text token of {rows} rows"
    # The plan's arithmetic is that of the matrices and of attention; all steps of the demo are guided.
    step = plan["flops"]["rollout_image"] / work["samples"] * rows / work["evaluations"]
    assert 0.6 < guided["flops"] / step < 1.2
    assert replay["flops"] > guided["flops"] / rows * work["micro_batch"] * 2
    for step in plan["trace"]:
        assert step["seconds"] > step["seconds_of_products"] > 0
        assert sum(kind["kernels"] for kind in step["kinds"].values()) == step["kernels"]
    fast = traced("--set", "model.init_args.policy.init_args.compiled=true")
    for before, after in zip(plan["trace"], fast["trace"], strict=True):
        assert after["flops"] == pytest.approx(before["flops"], rel=0.01)
        assert after["bytes"] < before["bytes"] and after["kernels"] < before["kernels"]


def test_times_need_speeds(capsys):
    assert main(["plan", "--config", "configs/shapes/demo.yaml", "--trace"]) == 1
    assert "--peak-tflops" in capsys.readouterr().err
