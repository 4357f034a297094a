"""Low-rank adapters, by peft, in place: parameter names stay those of a released adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

EXPERTS = r"language_model\.model\.layers\.\d+\.(self_attn|mlp|mlp_moe_gen)\.(q|k|v|o|gate|up|down)_proj(_moe_gen)?"
"""Every projection of both experts (the paper's choice)."""


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Adapters of `rank`, scaled by alpha / rank, on the linear layers whose whole name matches `target`."""

    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0
    target: str = EXPERTS


def add_lora(model: nn.Module, lora: LoRA) -> None:
    """Freeze the model and add trainable adapters. Raises ValueError if `target` matches no layer."""
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.target)
    inject_adapter_in_model(config, model)


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
