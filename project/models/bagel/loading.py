"""Checkpoint folders in the upstream layout: read tensor by tensor, written atomically."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.config import BagelConfig
from project.models.bagel.model import Bagel
from project.models.base import Defaults

WEIGHTS = "ema.safetensors"
SETTINGS = "generation_config.json"
SECTION = "alphagrpo"
THINK_PROMPT = (
    "You should first think about the planning process in the mind and then generate the image. \n"
    "The planning process is enclosed within <think> </think> tags, "
    "i.e. <think> planning process here </think> image here"
)
"""What BAGEL was trained to be told before it reasons about a picture to draw (upstream's words)."""
ASK_THINK_PROMPT = (
    "You should first think about the reasoning process in the mind and then provide the user with the answer. \n"
    "The reasoning process is enclosed within <think> </think> tags, "
    "i.e. <think> reasoning process here </think> answer here"
)
"""The same before it answers a question (upstream's words)."""


def load_bagel(directory: str, dtype: torch.dtype = torch.float32) -> Bagel:
    """The model of a folder, or of a hub id (fetched through huggingface_hub).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a configuration is invalid, a file is damaged, or tensors are missing, unexpected or mis-shaped
            (all of them listed at once).
    """
    folder = _resolve(directory)
    model = _on_meta(folder, lambda: Autoencoder.from_directory(folder))
    fill(model, _files(folder), dtype)
    return model.eval()


def random_bagel(directory: str, dtype: torch.dtype = torch.float32, std: float = 0.02, seed: int = 0) -> Bagel:
    """The model that a folder's configuration files describe, with random weights; no weight file is read.

    As fast and as large as the real one: matrices are normal with standard deviation `std`, gains 1, offsets 0. It
    hardly ever ends its texts, so they are as long as they may be. Raises as `load_bagel` does.
    """
    folder = _resolve(directory, with_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _on_meta(folder, lambda: Autoencoder.untrained(folder))
        for name, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                weight = torch.empty(tensor.shape, dtype=dtype).normal_(std=std)
            else:
                weight = torch.full(tensor.shape, 0.0 if name.endswith("bias") else 1.0, dtype=dtype)
            _assign(model, name, weight)
    return model.eval()


def save_bagel(
    model: Bagel, directory: str | Path, dtype: torch.dtype | None = None, max_shard_size: str | int = "50GB"
) -> None:
    """Write weights, autoencoder, configurations and tokenizer; a half-written file never takes a final name.

    Weights larger than `max_shard_size` become several files and an index, written one after the other.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save(folder)
    (folder / SETTINGS).write_text(json.dumps({SECTION: asdict(model.defaults)}, indent=2) + "\n")
    model.tokenizer.save_pretrained(folder)
    model.autoencoder.save(folder)
    state = model.state_dict()
    kept = {name: tensor.to(dtype=dtype, device="meta") for name, tensor in state.items()}
    parts = split_torch_state_dict_into_shards(
        kept, filename_pattern=WEIGHTS.replace(".", "{suffix}."), max_shard_size=max_shard_size
    )
    for name, tensors in parts.filename_to_tensors.items():
        weights = {tensor: state[tensor].detach().to("cpu", dtype).contiguous() for tensor in tensors}
        partial = folder / f".{name}.partial"
        save_file(weights, partial, metadata={"format": "pt"})
        # safetensors makes files that only their owner may read; a checkpoint is shared like any other file.
        shutil.copymode(folder / SETTINGS, partial)
        os.replace(partial, folder / name)
    if parts.is_sharded:
        index = {"metadata": parts.metadata, "weight_map": parts.tensor_to_filename}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _on_meta(folder: Path, autoencoder: Callable[[], Autoencoder]) -> Bagel:
    """The folder's model without weights, but for those of its autoencoder."""
    from transformers import AutoTokenizer, PreTrainedConfig

    config = BagelConfig.from_directory(folder)
    # An empty configuration: the tokenizer's own files say all, and upstream's config.json is not always valid.
    tokenizer = AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig())
    with torch.device("meta"):
        return Bagel(config, _on_cpu(autoencoder), tokenizer, _defaults(folder / SETTINGS))


def fill(model: torch.nn.Module, files: list[Path], dtype: torch.dtype) -> None:
    """Stream safetensors files into a model built on the meta device: one tensor in flight, no second copy."""
    expected = dict(model.state_dict())
    found: set[str] = set()
    faults: list[str] = []
    for file in files:
        with _opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
                found.add(name)
                if name not in expected:
                    faults.append(f"unexpected {name} in {file.name}")
                    continue
                shape = tuple(tensors.get_slice(name).get_shape())
                if shape != tuple(expected[name].shape):
                    faults.append(f"{name} in {file.name} has shape {shape}, not {tuple(expected[name].shape)}")
                    continue
                _assign(model, name, tensors.get_tensor(name).to(dtype))
    faults += [f"missing {name}" for name in expected if name not in found]
    if faults:
        listed = "\n  ".join(faults[:40]) + (f"\n  ... and {len(faults) - 40} more" if len(faults) > 40 else "")
        raise ValueError(f"{files[0].parent} does not fit its configuration files:\n  {listed}")


def _assign(model: torch.nn.Module, name: str, tensor: Tensor) -> None:
    module_name, _, leaf = name.rpartition(".")
    module = model.get_submodule(module_name)
    old = getattr(module, leaf)
    new = torch.nn.Parameter(tensor, requires_grad=old.requires_grad) if isinstance(old, torch.nn.Parameter) else tensor
    setattr(module, leaf, new)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error}): it is damaged or half-written, copy it again") from None


def _resolve(directory: str, with_weights: bool = True) -> Path:
    """A local folder, or the local copy of a hub repository named `owner/name`."""
    folder = Path(directory)
    if folder.is_dir():
        return folder
    if len(folder.parts) != 2 or folder.is_absolute() or folder.parts[0] in (".", "..", "data", "runs"):
        raise FileNotFoundError(f"no checkpoint folder {directory}: give a folder, or a hub id such as owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        unneeded = ["*.md", "*.png", "*.jpg", "*.gif", *([] if with_weights else ["*.safetensors"])]
        return Path(snapshot_download(directory, ignore_patterns=unneeded))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{directory} is neither a folder here nor a hub id that can be fetched: {error}"
        ) from None


def _files(folder: Path) -> list[Path]:
    """The weight file, or the shards that an index beside it names."""
    index = folder / f"{WEIGHTS}.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        files = [folder / name for name in names]
    else:
        files = [folder / WEIGHTS]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing: a BAGEL checkpoint folder holds {WEIGHTS} (or shards and their index)"
            )
    return files


def _defaults(file: Path) -> Defaults:
    """The project's own section of `generation_config.json`; upstream's file has none and means BAGEL's defaults."""
    settings = json.loads(file.read_text()).get(SECTION, {}) if file.is_file() else {}
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    try:
        return Defaults(**{"think_prompt": THINK_PROMPT, "ask_think_prompt": ASK_THINK_PROMPT, **settings})
    except TypeError as error:
        raise ValueError(f"{file}: unknown setting under {SECTION!r}: {error}") from None


def _on_cpu(make: Callable[[], Autoencoder]) -> Autoencoder:
    with torch.device("cpu"):
        return make()
