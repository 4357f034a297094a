"""Adapter folders as peft writes them: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from project.core.json_files import positive, read_object
from project.models.hub import local_copy
from project.models.weight_files import open_tensors, save_tensors

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TAKEN = (
    *("r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "use_rslora"),
)
"""Settings that say what an adapter is."""
HISTORY = (
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "runtime_config", "qalora_group_size", "megatron_core"),
)
"""Settings that do not change what it adds to the weights: about how it came to be, or options of others."""
STARTS = (True, False, "gaussian")
"""Values of `init_lora_weights` that leave the base weights alone; every other may change them when peft loads one."""


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

    folder = local_copy(directory, [CONFIG, WEIGHTS], what="adapter")
    config_file, file = folder / CONFIG, folder / WEIGHTS
    for needed in (config_file, file):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is missing: a PEFT adapter folder holds {CONFIG} and {WEIGHTS}")
    settings = _settings(config_file)
    with open_tensors(file) as opened:
        tensors = {name: opened.tensor(name) for name in opened.names()}
    try:
        config = LoraConfig(**{name: settings[name] for name in TAKEN if name in settings})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{config_file}: {error}") from None
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
    """Raises ValueError if it is no adapter that is W + scale * B A, naming every setting that makes it another."""
    settings = read_object(file, "a PEFT adapter folder")
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{file}: peft_type is {settings.get('peft_type')!r}; only LORA adapters are read")
    for name in ("r", "lora_alpha"):
        positive(settings, name, file)
    if more := sorted(_others(settings)):
        raise ValueError(f"{file} sets {', '.join(more)}: only plain LoRA adapters are read; merge it with peft first")
    return settings


def _others(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings that are known neither to be implemented here nor to change nothing."""
    from peft import LoraConfig

    usual = LoraConfig().to_dict()
    for name, value in settings.items():
        if name in TAKEN or name in HISTORY:
            continue
        if name == "init_lora_weights":
            if not any(value is start or value == start for start in STARTS):
                yield f"{name} ({value!r})"
        elif value and value != usual.get(name):
            yield name
