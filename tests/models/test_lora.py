"""Adapters in and out, and the references that the KL terms hold the policy to."""

from __future__ import annotations

import json
import logging
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from project.models.lora import (
    LoRA,
    adapter_parameters,
    adapters_at_start,
    adapters_off,
    add_lora,
    has_adapters,
    keep_start,
    load_adapter,
    merge_adapters,
    remove_adapters,
    save_adapter,
)
from tests.helpers import tiny_module
from tests.helpers.policies import tiny_bagel


class Net(nn.Module):
    """Two small layers, the first of which is adapted."""

    def __init__(self, width=6):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, width, bias=False), nn.Linear(width, 3)])

    def forward(self, x):
        return self.blocks[1](self.blocks[0](x))


FIRST = LoRA(rank=2, alpha=6, target=r"blocks\.0")
FILE = "adapter_model.safetensors"


def net(lora=None, seed=0, **settings):
    torch.manual_seed(seed)
    model = Net(**settings)
    if lora is not None:
        add_lora(model, lora)
        for parameter in adapter_parameters(model).values():
            nn.init.normal_(parameter)
    return model


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(9))


def test_a_new_adapter_changes_nothing_and_only_it_is_trained():
    model = Net()
    before = model(X)
    add_lora(model, FIRST)
    assert torch.equal(model(X), before)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {"blocks.0.lora_A.default.weight", "blocks.0.lora_B.default.weight"}


def test_names_and_maths_of_the_file(tmp_path):
    """y = W x + alpha / rank * B A x, with alpha / rank = 3."""
    model = net(FIRST)
    save_adapter(model, tmp_path)
    tensors = load_file(tmp_path / FILE)
    name = "base_model.model.blocks.0.lora_{}.weight"
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
        name.format("A"): (2, 4),
        name.format("B"): (6, 2),
    }
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA" and (settings["r"], settings["lora_alpha"]) == (2, 6)
    weight = net().blocks[0].weight + 3 * tensors[name.format("B")] @ tensors[name.format("A")]
    torch.testing.assert_close(model(X), net().blocks[1](X @ weight.T))
    merge_adapters(model)
    torch.testing.assert_close(model.blocks[0].weight, weight)
    assert isinstance(model.blocks[0], nn.Linear) and not has_adapters(model)
    assert model.state_dict().keys() == net().state_dict().keys()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_loaded_adapter_is_frozen_and_the_same(tmp_path, dtype):
    model, again = net(FIRST), net()
    save_adapter(model, tmp_path, dtype)
    load_adapter(again, str(tmp_path))
    for name, parameter in adapter_parameters(again).items():
        assert parameter.dtype == torch.float32 and not parameter.requires_grad
        expected = adapter_parameters(model)[name]
        assert torch.equal(parameter, expected if dtype is None else expected.bfloat16().float())


def test_training_starts_from_an_adapter(tmp_path):
    model = net(FIRST)
    save_adapter(model, tmp_path)
    again = net()
    add_lora(again, LoRA(rank=2, alpha=6, target=FIRST.target, adapter=str(tmp_path)))
    assert torch.equal(again(X), model(X))
    assert all(parameter.requires_grad for parameter in adapter_parameters(again).values())


# --------------------------------------------------------------------- how a new adapter starts


def new_adapters(layers, seed=0, **settings):
    """By name, those of a sequence of layers."""
    torch.manual_seed(seed)
    model = nn.Sequential(*layers)
    add_lora(model, LoRA(target=r"\d+", **settings))
    return {name.removeprefix("base_model.model."): p.detach() for name, p in adapter_parameters(model).items()}


def test_how_wide_a_new_adapter_is_at_full_size():
    """Rank 32 on layers as wide as BAGEL-7B's: 3584 inputs (q projection) and 18944 (down projection)."""
    for init, widths in (("gaussian", (1 / 32, 1 / 32)), ("default", ((3 * 3584) ** -0.5, (3 * 18944) ** -0.5))):
        made = new_adapters([nn.Linear(3584, 8), nn.Linear(18944, 8)], init=init)
        for n, std in enumerate(widths):
            assert made[f"{n}.lora_A.weight"].std().item() == pytest.approx(std, rel=0.02), init
            assert not made[f"{n}.lora_B.weight"].any()


def test_how_wide_the_new_adapters_of_a_policy_are():
    torch.manual_seed(0)
    model = tiny_bagel()
    add_lora(model, LoRA(rank=32, init="gaussian"))
    adapters = adapter_parameters(model)
    for layer in (r"self_attn.q_proj", "mlp.down_proj"):
        for expert in ("", "_moe_gen"):
            part = layer.replace("mlp", f"mlp{expert}") if "mlp" in layer else layer + expert
            wide = torch.cat([p.flatten() for n, p in adapters.items() if f"{part}.lora_A" in n])
            assert wide.std().item() == pytest.approx(0.03125, rel=0.05) and abs(wide.mean()) < 3e-3
    assert not any(p.any() for n, p in adapters.items() if "lora_B" in n)


def test_the_default_is_pefts_own_start_to_the_bit():
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(3)
    theirs = Net()
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=6, target_modules=FIRST.target), theirs)
    torch.manual_seed(3)
    ours = Net()
    add_lora(ours, FIRST)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


@pytest.mark.parametrize("init", ["default", "gaussian"])
def test_a_seed_makes_the_same_new_adapters_on_every_rank(init):
    first, again, other = (new_adapters([nn.Linear(6, 5)], seed, rank=4, init=init) for seed in (1, 1, 2))
    assert torch.equal(first["0.lora_A.weight"], again["0.lora_A.weight"])
    assert not torch.equal(first["0.lora_A.weight"], other["0.lora_A.weight"])


def test_an_adapter_starts_from_its_own_weights_and_says_so(tmp_path, caplog):
    model = net(FIRST)
    save_adapter(model, tmp_path)
    again = net()
    with caplog.at_level(logging.INFO):
        add_lora(again, LoRA(rank=2, alpha=6, target=FIRST.target, adapter=str(tmp_path), init="gaussian"))
    assert torch.equal(again(X), model(X))
    assert f"lora.init=gaussian is for new adapters: {tmp_path} starts from its own weights" in caplog.text


def test_the_file_of_a_gaussian_start_is_read_by_peft_and_names_it(tmp_path):
    """As peft writes it: whoever makes a new adapter from this configuration gets the same start."""
    from peft import PeftModel

    model = net(LoRA(rank=2, alpha=6, target=FIRST.target, init="gaussian"))
    save_adapter(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["init_lora_weights"] == "gaussian"
    assert torch.equal(PeftModel.from_pretrained(net(), str(tmp_path))(X), model(X))
    ours = net()
    load_adapter(ours, str(tmp_path))
    assert torch.equal(ours(X), model(X))


@pytest.mark.parametrize("stored", ["list", "rslora", "patterns", "gaussian"])
def test_what_other_tools_write_is_read(tmp_path, stored):
    """Targets as a list of names; a scale of alpha / sqrt(rank); ranks and alphas of some layers; another start."""
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["blocks.0"], use_rslora=stored == "rslora")
    if stored == "patterns":
        config.rank_pattern, config.alpha_pattern = {"blocks.0": 3}, {"blocks.0": 5}
    if stored == "gaussian":
        config.init_lora_weights = "gaussian"
    theirs = get_peft_model(net(), config)
    for parameter in adapter_parameters(theirs.base_model.model).values():
        nn.init.normal_(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(tmp_path)
    ours = net()
    load_adapter(ours, str(tmp_path))
    assert torch.equal(ours(X), theirs(X))
    save_adapter(ours, tmp_path / "again")
    back = PeftModel.from_pretrained(net(), str(tmp_path / "again"))
    assert torch.equal(back(X), theirs(X))
    merge_adapters(ours)
    assert torch.equal(ours.blocks[0].weight, theirs.merge_and_unload().blocks[0].weight)


# --------------------------------------------------------------------- adapters that do not fit


@pytest.fixture
def folder(tmp_path):
    save_adapter(net(FIRST), tmp_path)
    return tmp_path


def refused(model, folder, lora=None):
    """The message, after making sure that nothing was left behind."""
    names = list(model.state_dict())
    with pytest.raises(ValueError) as error:
        if lora is None:
            load_adapter(model, str(folder))
        else:
            add_lora(model, lora)
    assert list(model.state_dict()) == names and not has_adapters(model)
    return str(error.value)


def test_every_faulty_tensor_is_listed_in_one_error(folder):
    tensors = load_file(folder / FILE)
    tensors["base_model.model.blocks.7.lora_A.weight"] = torch.zeros(2, 4)
    tensors["base_model.model.blocks.0.lora_A.weight"] = torch.zeros(2, 5)
    del tensors["base_model.model.blocks.0.lora_B.weight"]
    save_file(tensors, folder / FILE)
    message = refused(net(), folder)
    assert f"{folder / FILE} is no adapter of this model" in message
    assert "base_model.model.blocks.0.lora_A.weight has shape (2, 5), not (2, 4)" in message
    assert "unexpected base_model.model.blocks.7.lora_A.weight" in message
    assert "missing base_model.model.blocks.0.lora_B.weight" in message


def test_an_adapter_for_other_shapes(folder):
    message = refused(net(width=8), folder)
    assert "blocks.0.lora_B.weight has shape (6, 2), not (8, 2)" in message and "lora_A" not in message


def test_an_adapter_for_other_layers(folder):
    assert str(folder / "adapter_config.json") in refused(nn.Sequential(nn.Linear(4, 6)), folder)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"rank": 4}, "has rank 2, but lora.rank is 4: set it to 2"),
        ({"alpha": 8}, "has alpha 6, but lora.alpha is 8: set it to 6"),
        ({"target": r"blocks\.[01]"}, "adapts other layers than lora.target: blocks.1;"),
    ],
)
def test_settings_that_contradict_the_adapter(folder, changes, part):
    said = {"rank": 2, "alpha": 6, "target": FIRST.target, **changes}
    message = refused(net(), folder, LoRA(**said, adapter=str(folder)))
    assert part in message and "adapter_config.json" in message


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights ('pissa')"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "layer_replication"),
        ({"target_parameters": ["blocks.0.weight"]}, "target_parameters"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"modules_to_save": ["blocks.1"]}, "modules_to_save"),
        ({"a_setting_of_tomorrow": 3}, "a_setting_of_tomorrow"),
        ({"r": None}, "'r' is None"),
        ({"layers_to_transform": [0], "target_modules": "a"}, "layers_to_transform"),
        ({"peft_type": "IA3"}, "IA3"),
    ],
)
def test_adapters_that_are_more_than_lora(folder, changes, part):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    message = refused(net(), folder)
    assert str(file) in message and part in message


def test_a_byte_order_mark_is_no_fault(folder):
    file = folder / "adapter_config.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    load_adapter(net(), str(folder))


def test_what_git_lfs_left_is_named(folder):
    for name in (FILE, "adapter_config.json"):
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        assert str(folder / name) in (message := refused(net(), folder)) and "git lfs pull" in message


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused(folder, number):
    tensors = load_file(folder / FILE)
    tensors["base_model.model.blocks.0.lora_B.weight"][3, 1] = number
    save_file(tensors, folder / FILE)
    message = refused(net(), folder)
    assert f"{folder / FILE}: base_model.model.blocks.0.lora_B.weight holds NaN or infinite" in message


def test_importing_peft_says_nothing_of_kernels(caplog):
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please ...", "no kernels")
    logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


def test_damaged_and_missing_files(folder):
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2])
    assert f"{folder / FILE} cannot be read" in refused(net(), folder)
    (folder / FILE).unlink()
    with pytest.raises(FileNotFoundError, match=FILE):
        load_adapter(net(), str(folder))
    (folder / FILE).write_bytes(content)
    (folder / "adapter_config.json").write_text("{")
    assert "adapter_config.json:1: not valid JSON" in refused(net(), folder)
    with pytest.raises(FileNotFoundError, match="no adapter folder"):
        load_adapter(net(), str(folder / "nowhere" / "at" / "all"))


def test_a_target_that_matches_nothing():
    with pytest.raises(ValueError, match=r"lora\.target: .*not found"):
        add_lora(net(), LoRA(target="nothing"))


def test_a_model_without_adapters_has_none_to_save(tmp_path):
    with pytest.raises(ValueError, match="no adapters"):
        save_adapter(net(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------- merging


def test_merging_rounds_once():
    """A bf16 weight plus an fp32 adapter: the sum is rounded, not its parts; a wider `dtype` keeps all of it."""
    exact, narrow, wide = net(FIRST), net().bfloat16(), net().bfloat16()
    for model in (narrow, wide):
        add_lora(model, FIRST)
        for name, parameter in adapter_parameters(model).items():
            parameter.data = adapter_parameters(exact)[name].data.clone()
    delta = exact.blocks[0].get_delta_weight("default").detach()
    total = net().blocks[0].weight.detach().bfloat16().float() + delta
    merge_adapters(narrow)
    merge_adapters(wide, torch.float32)
    assert torch.equal(narrow.blocks[0].weight, total.bfloat16())
    assert torch.equal(wide.blocks[0].weight, total)
    assert not torch.equal(total.bfloat16(), net().blocks[0].weight.bfloat16() + delta.bfloat16()), "proves nothing"


def test_taking_adapters_away_leaves_the_base():
    model = net(FIRST)
    remove_adapters(model)
    assert torch.equal(model(X), net()(X)) and not has_adapters(model)


# --------------------------------------------------------------------- references


def flags(model):
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def test_the_base_is_the_model_without_adapters():
    model = net(FIRST)
    with adapters_off(model):
        assert torch.equal(model(X), net()(X))
    assert not torch.equal(model(X), net()(X))


def test_the_start_is_a_frozen_copy():
    model = net(FIRST)
    start = model(X)
    keep_start(model)
    assert torch.equal(model(X), start)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(1)
    moved = model(X)
    with adapters_at_start(model):
        assert torch.equal(model(X), start)
    assert torch.equal(model(X), moved) and not torch.equal(moved, start)
    with adapters_off(model):
        assert torch.equal(model(X), net()(X))
    assert torch.equal(model(X), moved), "after the base the adapters in use are back, not those of the start"
    trainable = {name for name, flag in flags(model).items() if flag}
    assert trainable == {"blocks.0.lora_A.default.weight", "blocks.0.lora_B.default.weight"}


def test_the_frozen_copy_is_in_no_file_and_in_no_merge(tmp_path):
    model, alone = net(FIRST), net(FIRST)
    keep_start(model)
    save_adapter(model, tmp_path)
    assert len(load_file(tmp_path / FILE)) == 2
    merge_adapters(model)
    merge_adapters(alone)
    assert torch.equal(model.blocks[0].weight, alone.blocks[0].weight)


@pytest.mark.parametrize("reference", [adapters_off, adapters_at_start])
def test_references_leave_frozen_adapters_frozen_and_gradients_alone(reference):
    """A replay under the reference comes between the forward pass and the backward pass."""
    gradients = []
    for between in (False, True):
        model = net(FIRST)
        keep_start(model)
        adapter_parameters(model)["base_model.model.blocks.0.lora_A.weight"].requires_grad_(False)
        before = flags(model)
        loss = model(X).square().mean()
        if between:
            with reference(model), torch.no_grad():
                model(X)
        loss.backward()
        assert flags(model) == before
        gradients.append(adapter_parameters(model)["base_model.model.blocks.0.lora_B.weight"].grad)
    assert gradients[0].abs().max() > 0 and torch.equal(*gradients)


# --------------------------------------------------------------------- in training


def test_kl_against_the_base_and_against_the_start(tmp_path):
    """A run that starts from an adapter: at its first update it equals its start, but not the base."""
    from project.objectives.grpo import GRPO

    house = tiny_module
    lora = {"rank": 2, "alpha": 4, "target": r"qkv\.\d+"}
    first = house.make_module(lora=LoRA(**lora))
    first.configure_model()
    for parameter in adapter_parameters(first.policy).values():
        nn.init.normal_(parameter, std=0.3)
    save_adapter(first.policy, tmp_path)
    kl = {}
    for reference in ("base", "start"):
        for updates in (1, 2):
            objective = GRPO(kl_text=0.01, kl_image=0.01)
            again = LoRA(**lora, adapter=str(tmp_path))
            module = house.make_module(lora=again, reference=reference, objective=objective)
            trainer = house.train(module, updates=updates)
            kl[reference, updates] = {name: float(trainer.callback_metrics[f"kl/{name}"]) for name in ("text", "image")}
    for name in ("text", "image"):
        assert kl["start", 1][name] < 1e-9 < 1e-4 < kl["base", 1][name], kl
        assert kl["start", 1][name] < kl["start", 2][name] < kl["base", 2][name], kl
