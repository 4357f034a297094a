"""Adapter folders as peft writes them: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from project.models.hub import local_copy
from project.models.weight_files import save_tensors

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TAKEN = (
    *("r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "use_rslora"),
)
"""Settings that say what an adapter is. The others are about how it came to be."""
REFUSED = ("use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "modules_to_save", "trainable_token_indices")
"""Settings that make it more than W + scale * B A."""


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """A plain LoRA adapter that was read. Tensors by their names in the file."""

    config: LoraConfig
    config_file: Path
    tensors: Mapping[str, Tensor]
    file: Path


def read_adapter(directory: str) -> AdapterFiles:
    """The adapter in a folder, or in a hub repository named `owner/name`.

    Raises FileNotFoundError or ValueError naming the file.
    """
    from peft import LoraConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = local_copy(directory, [CONFIG, WEIGHTS], what="adapter")
    config_file, file = folder / CONFIG, folder / WEIGHTS
    for needed in (config_file, file):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is missing: a PEFT adapter folder holds {CONFIG} and {WEIGHTS}")
    settings = _settings(config_file)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error}): it is damaged or half-written, copy it again") from None
    config = LoraConfig(**{name: settings[name] for name in TAKEN if name in settings})
    return AdapterFiles(config=config, config_file=config_file, tensors=tensors, file=file)


def write_adapter(
    directory: str | Path, config: LoraConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> None:
    """Write both files into a folder, tensors in `dtype` (their own if None)."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(config)
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_tensors(tensors, folder / WEIGHTS, dtype)


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no valid JSON ({error}): copy it again") from None
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type") if isinstance(settings, dict) else None
        raise ValueError(f"{file}: peft_type is {kind!r}; only LORA adapters are read")
    more = [name for name in REFUSED if settings.get(name)]
    if settings.get("bias", "none") != "none":
        more.append("bias")
    if more:
        raise ValueError(f"{file} sets {', '.join(more)}: only plain LoRA adapters are read; merge it with peft first")
    return settings
