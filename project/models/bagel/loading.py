"""Checkpoint folders in the upstream layout: read tensor by tensor, written atomically."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.config import BAGEL_7B, BagelConfig
from project.models.bagel.model import Bagel
from project.models.bagel.well_known import HUB_ID, StandInTokenizer
from project.models.base import Defaults
from project.models.hub import local_copy
from project.models.lora import has_adapters
from project.models.weight_files import save_weights

log = logging.getLogger(__name__)

WEIGHTS = "ema.safetensors"
SETTINGS = "generation_config.json"
SECTION = "alphagrpo"
DESCRIPTION = ("*.json", "merges.txt")
TENSORS = ("ema.safetensors", "ema-*-of-*.safetensors", "ae.safetensors")
"""What is fetched of a hub repository: configurations, index and tokenizer; the weights."""
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
    folder = local_copy(directory, [*DESCRIPTION, *TENSORS])
    model = _on_meta(folder, lambda: Autoencoder.from_directory(folder))
    fill(model, _files(folder), dtype)
    return model.eval()


def random_bagel(directory: str, dtype: torch.dtype = torch.float32, std: float = 0.02, seed: int = 0) -> Bagel:
    """The model that a folder's configuration files describe, with random weights; no weight file is read.

    As fast and as large as the real one: matrices are normal with standard deviation `std`, gains 1, offsets 0. It
    hardly ever ends its texts, so they are as long as they may be. BAGEL-7B needs no file at all: if its own cannot
    be had, its sizes are known and a stand-in splits the words. Raises as `load_bagel` does.
    """
    folder = _description(directory)
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


def outline_bagel(directory: str, dtype: torch.dtype = torch.float32) -> Bagel:
    """The model that a folder's configuration files describe, all of it on the meta device: names, shapes, types.

    Nothing is fetched for BAGEL-7B. Raises as `load_bagel` does.
    """
    folder = Path(directory) if directory == HUB_ID else local_copy(directory, DESCRIPTION)
    model = _on_meta(folder, lambda: Autoencoder.untrained(folder), autoencoder_device="meta")
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval()


def save_bagel(
    model: Bagel, directory: str | Path, dtype: torch.dtype | None = None, max_shard_size: int | None = None
) -> None:
    """Write weights, autoencoder, configurations and tokenizer; a half-written file never takes a final name.

    Args:
        dtype: of the weights in the files; their own if None.
        max_shard_size: bytes in a weight file; all in one `ema.safetensors` (which upstream's scripts read) if None.

    Raises:
        ValueError: the model has adapters, which the layout has no place for.
    """
    if has_adapters(model):
        raise ValueError("the model has adapters: merge_adapters adds them to the weights, save_adapter writes them")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save(folder)
    (folder / SETTINGS).write_text(json.dumps({SECTION: asdict(model.defaults)}, indent=2) + "\n")
    model.tokenizer.save_pretrained(folder)
    model.autoencoder.save(folder)
    save_weights(model.state_dict(), folder, WEIGHTS, dtype, max_shard_size)


def _on_meta(folder: Path, autoencoder: Callable[[], Autoencoder], autoencoder_device: str = "cpu") -> Bagel:
    """The folder's model without weights, but for those of its autoencoder. (A path that is no folder: BAGEL-7B.)"""
    from transformers import AutoTokenizer, PreTrainedConfig

    config = BAGEL_7B
    tokenizer: Any = StandInTokenizer()
    if folder.is_dir():
        config = BagelConfig.from_directory(folder)
        # An empty configuration: the tokenizer's own files say all, and upstream's config.json is not always valid.
        tokenizer = AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig())
    with torch.device(autoencoder_device):
        made = autoencoder()
    with torch.device("meta"):
        return Bagel(config, made, tokenizer, _defaults(folder / SETTINGS))


def _description(directory: str) -> Path:
    """A folder with all but the weights; for BAGEL-7B without network the hub id itself."""
    try:
        return local_copy(directory, DESCRIPTION)
    except FileNotFoundError as error:
        if directory != HUB_ID:
            raise
        log.warning("%s: taking BAGEL-7B's known sizes and a stand-in for its tokenizer", error)
        return Path(directory)


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
