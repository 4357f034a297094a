"""Low-rank adapters, by peft, in place: parameter names stay those of a released adapter."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from project.models.adapter_files import AdapterFiles, read_adapter, write_adapter
from project.models.base import UnifiedModel
from project.models.precision import autocasts
from project.models.weight_files import listed, misfits

log = logging.getLogger(__name__)

ADAPTER, START, ROLLOUT = "default", "start", "rollout"
"""What peft calls the adapters in use, and their frozen copies. Files never hold these names."""


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Adapters of `rank`, scaled by alpha / rank, on the linear layers whose whole name matches `target`.

    Without `target` the model says which layers these are.
    `adapter` is a released PEFT adapter (folder or hub id) to start from; rank, alpha and target must then be its own.

    `init` is how a new adapter starts, as in peft 0.21. B is zero in both, so it changes nothing yet.
    `default`: A is uniform with standard deviation 1 / sqrt(3 * inputs) (`kaiming_uniform_(a=sqrt(5))`).
    `gaussian`: A is normal with standard deviation 1 / rank (`init_lora_weights="gaussian"`).
    A wider A moves the weights further at the same learning rate: at rank 32 in BAGEL-7B, `gaussian` is 3.2 times as
    wide as `default` for layers with 3584 inputs, and 7.4 times for those with 18944. An `adapter` starts from its own
    weights: `init` does not touch it, and a log line says so if it is not `default`.
    """

    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0
    target: str | None = None
    adapter: str | None = None
    init: Literal["default", "gaussian"] = "default"


def add_lora(model: nn.Module, lora: LoRA) -> None:
    """Freeze the model and add trainable adapters: new ones (which change nothing yet) or those of `lora.adapter`.

    Raises:
        FileNotFoundError, ValueError: `target` matches no layer, or the adapter is missing, damaged, of another rank,
            alpha or target than `lora` says, or made for another model (all its faulty tensors listed at once).
    """
    from peft import LoraConfig

    target = lora.target or _target_of(model)
    model.requires_grad_(False)
    if lora.adapter is None:
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=target,
            init_lora_weights=True if lora.init == "default" else lora.init,
        )
        _inject(config, model, "lora.target")
        return
    if lora.init != "default":
        log.info("lora.init=%s is for new adapters: %s starts from its own weights", lora.init, lora.adapter)
    files = read_adapter(lora.adapter)
    for name, own, theirs in (("rank", lora.rank, files.config.r), ("alpha", lora.alpha, files.config.lora_alpha)):
        if own != theirs:
            raise ValueError(f"{files.config_file} has {name} {theirs}, but lora.{name} is {own}: set it to {theirs}")
    chosen = {name for name, _ in model.named_modules() if re.fullmatch(target, name)}
    files.config.lora_dropout = lora.dropout
    _lay_over(model, files)
    if differing := sorted(chosen ^ {name for name, _ in _adapted(model)}):
        remove_adapters(model)
        raise ValueError(
            f"{files.config_file} adapts other layers than lora.target: {_few(differing)}; "
            f"set lora.target to a pattern of its target_modules, {files.config.target_modules!r}"
        )


def load_adapter(model: nn.Module, directory: str) -> None:
    """Freeze the model and lay a released PEFT adapter (folder or hub id) over it, in fp32, frozen too.

    Raises as `add_lora`; the model then has no adapters.
    """
    _lay_over(model, read_adapter(directory))
    model.requires_grad_(False)


def add_in(model: nn.Module, directory: str) -> None:
    """Add a released PEFT adapter (folder or hub id) to the weights, which stay as trainable as they are; in place.

    Raises as `add_lora`.
    """
    with _flags_kept(model):
        load_adapter(model, directory)
        merge_adapters(model)


def save_adapter(model: nn.Module, directory: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as peft does, tensors in `dtype` (fp32 if None).

    Raises ValueError if the model has no adapters.
    """
    if not has_adapters(model):
        raise ValueError("the model has no adapters to save: all its weights are its own")
    config: Any = copy.deepcopy(model.peft_config[ADAPTER])  # type: ignore[index, union-attr]
    config.base_model_name_or_path = getattr(model, "name_or_path", None)
    write_adapter(directory, config, {n: p.detach() for n, p in adapter_parameters(model).items()}, dtype)


def has_adapters(model: nn.Module) -> bool:
    return next(_adapted(model), None) is not None


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters in use by their names in files: `base_model.model.LAYER.lora_A.weight`."""
    marker = f".{ADAPTER}."
    return {
        f"base_model.model.{name.replace(marker, '.')}": parameter
        for name, parameter in model.named_parameters()
        if ".lora_" in name and marker in name
    }


def merge_adapters(model: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Add every adapter to the weights it belongs to, and take it away; in place.

    W + alpha / rank * B A is summed in the adapters' fp32 and rounded once: to the weight's own type, or to `dtype` if
    that is wider.
    """
    for _, layer in _adapted(model):
        weight = layer.get_base_layer().weight
        weight.data = weight.data.to(torch.promote_types(weight.dtype, dtype or weight.dtype))
        layer.merge(adapter_names=[ADAPTER])
    remove_adapters(model)


def remove_adapters(model: nn.Module) -> None:
    """Leave the layers that the adapters were laid over, as they are now; in place."""
    for name, layer in list(_adapted(model)):
        model.set_submodule(name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


# --------------------------------------------------------------------- references of the KL terms


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The base model, without its adapters."""
    with _flags_kept(model):
        for _, layer in _adapted(model):
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for _, layer in _adapted(model):
                layer.enable_adapters(True)


def keep_start(model: nn.Module) -> None:
    """Keep a frozen copy of the adapters as they are now, which `adapters_at_start` uses."""
    keep_adapters(model, START)


def keep_adapters(model: nn.Module, name: str) -> None:
    """Keep a frozen copy of the adapters as they are now, which `adapters_as_kept` uses by its name."""
    from peft import inject_adapter_in_model

    configs: Any = model.peft_config
    del model.peft_config  # peft warns of a second adapter
    with _flags_kept(model):
        inject_adapter_in_model(copy.deepcopy(configs[ADAPTER]), model, adapter_name=name)
        for _, layer in _adapted(model):
            for part in (layer.lora_A, layer.lora_B):
                part[name].weight.data = part[ADAPTER].weight.detach().clone()
                part[name].requires_grad_(False)
            layer.set_adapter(ADAPTER)
    model.peft_config = configs


def kept_adapters(model: nn.Module, name: str) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """The copy that `keep_adapters` made, and the adapters in use, by the names of these in the model."""
    return {
        f"{layer_name}.{part}.{ADAPTER}.weight": (
            getattr(layer, part)[name].weight,
            getattr(layer, part)[ADAPTER].weight,
        )
        for layer_name, layer in _adapted(model)
        for part in ("lora_A", "lora_B")
    }


def adapters_at_start(model: nn.Module) -> AbstractContextManager[None]:
    """The model with its adapters as they were at `keep_start`."""
    return adapters_as_kept(model, START)


@contextmanager
def adapters_as_kept(model: nn.Module, name: str) -> Iterator[None]:
    """The model with the copy of its adapters that `keep_adapters` made."""
    with _flags_kept(model):
        for _, layer in _adapted(model):
            layer.set_adapter(name)
        try:
            yield
        finally:
            for _, layer in _adapted(model):
                layer.set_adapter(ADAPTER)


@contextmanager
def _flags_kept(model: nn.Module) -> Iterator[None]:
    """peft makes adapters trainable whenever it switches them on, also those that were frozen; not for long here."""
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trainable)


def _target_of(model: nn.Module) -> str:
    if not isinstance(model, UnifiedModel):
        raise ValueError(f"{type(model).__name__} names no layers for adapters: set lora.target to a pattern of names")
    return model.adapter_target


def _lay_over(model: nn.Module, files: AdapterFiles) -> None:
    """Add the adapters of `files`. Raises ValueError, without them, listing all tensors that do not fit."""
    _inject(files.config, model, str(files.config_file))
    expected = adapter_parameters(model)
    faults = misfits({name: tuple(tensor.shape) for name, tensor in files.tensors.items()}, expected)
    faults += [f"missing {name}" for name in expected if name not in files.tensors]
    if faults:
        remove_adapters(model)
        raise ValueError(f"{files.file} is no adapter of this model:\n  {listed(faults)}")
    for name, parameter in expected.items():
        parameter.data = files.tensors[name].to(parameter.device, torch.float32)


def _inject(config: Any, model: nn.Module, named: str) -> None:
    from peft import inject_adapter_in_model

    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        remove_adapters(model)
        raise ValueError(f"{named}: {error}") from None
    for _, layer in _adapted(model):
        layer._cast_input_dtype = _fed


def _fed(x: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """What an adapter with weights of `dtype` is fed.

    peft would widen a bf16 input to the adapter's fp32 and autocast would narrow it again: two copies for nothing.
    """
    if x is None or (not torch.compiler.is_compiling() and autocasts(x.device)):
        return x
    return x.to(dtype)


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and wrapper of every layer with an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
