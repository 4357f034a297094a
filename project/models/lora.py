"""Low-rank adapters, by peft, in place: parameter names stay those of a released adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

EXPERTS = r"language_model\.model\.layers\.\d+\.(self_attn|mlp|mlp_moe_gen)\.(q|k|v|o|gate|up|down)_proj(_moe_gen)?"
"""Every projection of both experts (the paper's choice)."""
_PREFIX = "base_model.model."
"""Before every name in a PEFT file."""


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Adapters of `rank`, scaled by alpha / rank, on the linear layers whose whole name matches `target`.

    `adapter` starts from a released one (a PEFT folder, or a hub id), whose rank, alpha and layers count then.
    """

    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0
    target: str = EXPERTS
    adapter: str | None = None


def add_lora(model: nn.Module, lora: LoRA) -> None:
    """Freeze the model and add trainable adapters.

    Raises FileNotFoundError or ValueError if `target` matches no layer, or as `load_adapter`.
    """
    from peft import LoraConfig

    if lora.adapter is not None:
        load_adapter(model, lora.adapter)
        return
    _inject(
        model,
        LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.target),
    )


def load_adapter(model: nn.Module, adapter: str) -> None:
    """Put a PEFT adapter (folder or hub id) over a model.

    Raises:
        FileNotFoundError: there is no such adapter.
        ValueError: it is no LoRA, is damaged, or its tensors are missing, unexpected or mis-shaped (all listed).
    """
    from peft import LoraConfig, PeftConfig
    from peft.utils import load_peft_weights
    from safetensors import SafetensorError

    try:
        config = PeftConfig.from_pretrained(adapter)
    except (ValueError, OSError) as error:
        raise FileNotFoundError(f"{adapter} is no PEFT adapter (a folder with adapter_config.json): {error}") from None
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{adapter} holds a {config.peft_type} adapter: only LoRA is supported")
    try:
        weights = load_peft_weights(adapter, device="cpu")
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"the weights of {adapter} cannot be read ({error}): copy them again") from None
    config.inference_mode = False
    _inject(model, config)
    parameters = {_released(name): parameter for name, parameter in model.named_parameters() if _is_adapter(name)}
    faults = [f"unexpected {name}" for name in weights if name not in parameters]
    faults += [f"missing {name}" for name in parameters if name not in weights]
    for name in parameters.keys() & weights.keys():
        ours, theirs = tuple(parameters[name].shape), tuple(weights[name].shape)
        if ours != theirs:
            faults.append(f"{name} has shape {theirs}, not {ours}")
    if faults:
        raise ValueError(f"{adapter} is an adapter of another model:\n  " + "\n  ".join(sorted(faults)[:40]))
    for name, parameter in parameters.items():
        parameter.data = weights[name].to(parameter.device, parameter.dtype)


def save_adapter(model: nn.Module, directory: str) -> None:
    """Write the adapters of a model as a PEFT folder. Raises ValueError if it has none."""
    from pathlib import Path

    from safetensors.torch import save_file

    weights = adapter_weights(model)
    if not weights:
        raise ValueError("this model has no adapters: it was trained whole, export its merged weights")
    config = _adapter_config(model)
    config.save_pretrained(directory)
    save_file(weights, Path(directory) / "adapter_model.safetensors", metadata={"format": "pt"})


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' tensors by their PEFT names, on the CPU."""
    return {
        _released(name): parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if _is_adapter(name)
    }


def merge_adapters(model: nn.Module) -> None:
    """Add the adapters to the weights that they belong to, in the weights' own type, and take them away."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()  # type: ignore[operator]
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, layer.get_base_layer())


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The base model, without its adapters: the reference of the KL terms."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _inject(model: nn.Module, config: Any) -> None:
    from peft import inject_adapter_in_model

    model.requires_grad_(False)
    inject_adapter_in_model(config, model)


def _adapter_config(model: nn.Module) -> Any:
    configs: dict[str, Any] = model.peft_config  # type: ignore[assignment]
    return configs["default"]


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _released(name: str) -> str:
    """The name that PEFT files use."""
    return _PREFIX + name.replace(".default.", ".")
