"""Checkpoint folders in the upstream layout: read tensor by tensor, written atomically.

`make` is everywhere the class of the network that is filled (`Bagel`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from project.core.atomic_files import atomic_folder, write_atomically, writing
from project.core.git_lfs import LFS_REMEDY, is_lfs_pointer
from project.core.json_files import read_object, section
from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.config import BAGEL_7B, BagelConfig, BagelDefaults
from project.models.bagel.well_known import HUB_ID, StandInTokenizer
from project.models.hub import local_copy
from project.models.lora import has_adapters
from project.models.precision import stored_dtype
from project.models.weight_files import listed, misfits, open_tensors, save_weights

if TYPE_CHECKING:
    from project.models.bagel.model import Bagel

log = logging.getLogger(__name__)

WEIGHTS = "ema.safetensors"
SETTINGS = "generation_config.json"
SECTION = "alphagrpo"
DESCRIPTION = ("*.json", "merges.txt")
TENSORS = ("ema.safetensors", "ema-*-of-*.safetensors", "ae.safetensors")
"""What is fetched of a hub repository: configurations, index and tokenizer; the weights."""
VOCABULARIES = ("tokenizer.json", "vocab.json")
"""Either makes a tokenizer (the second one with merges.txt)."""
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
PUBLISHED = {"max_tokens": 2048, "temperature": 0.3, "top_p": 1.0}
"""How the paper's evaluations of BAGEL sample the reasoning."""


def load_bagel(make: type[Bagel], directory: str, dtype: torch.dtype | None = torch.float32) -> Bagel:
    """The model of a folder, or of a hub id (fetched through huggingface_hub).

    The network is made without weights, and they are read one by one, so that memory holds them once, in `dtype`, and
    the one that is being read. They are put on the default device (`with torch.device("cuda:1"):`).

    Args:
        dtype: of the weights in memory; that of the files if None. The autoencoder is fp32.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a configuration is invalid, a file is damaged, or tensors are missing, unexpected or mis-shaped
            (all of them listed at once).
    """
    folder = local_copy(directory, [*DESCRIPTION, *TENSORS])
    files = _files(folder)
    model = _on_meta(make, folder, lambda: Autoencoder.from_directory(folder))
    try:
        fill(model, files, dtype)
    except ValueError as error:
        if model.config.files.get("config"):
            raise
        unread = f"{folder / 'config.json'} is missing or invalid: BAGEL-7B's numbers stand for what only it tells"
        raise ValueError(f"{error}\n{unread}") from None
    model.name_or_path = directory
    return model.eval()


def random_bagel(
    make: type[Bagel], directory: str, dtype: torch.dtype = torch.float32, std: float = 0.02, seed: int = 0
) -> Bagel:
    """The model that a folder's configuration files describe, with random weights; no weight file is read.

    As fast and as large as the real one: matrices are normal with standard deviation `std`, gains 1, offsets 0. It
    hardly ever ends its texts, so they are as long as they may be. BAGEL-7B needs no file at all: if its own cannot
    be had, its sizes are known and a stand-in splits the words. Raises as `load_bagel` does.
    """
    folder = _description(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _on_meta(make, folder, lambda: Autoencoder.untrained(folder))
        for name, tensor in model.state_dict().items():
            stored = stored_dtype(_owner(model, name), dtype)
            if tensor.ndim > 1:
                weight = torch.empty(tensor.shape, dtype=stored).normal_(std=std)
            else:
                weight = torch.full(tensor.shape, 0.0 if name.endswith("bias") else 1.0, dtype=stored)
            _assign(model, name, weight)
    return model.eval()


def outline_bagel(make: type[Bagel], directory: str, dtype: torch.dtype = torch.float32) -> Bagel:
    """The model that a folder's configuration files describe, all of it on the meta device: names, shapes, types.

    Nothing is fetched for BAGEL-7B. Raises as `load_bagel` does.
    """
    folder = Path(directory) if directory == HUB_ID else local_copy(directory, DESCRIPTION)
    model = _on_meta(make, folder, lambda: Autoencoder.untrained(folder), autoencoder_device="meta")
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(stored_dtype(_owner(model, name), dtype))
    return model.eval()


def save_bagel(
    model: Bagel, directory: str | Path, dtype: torch.dtype | None = None, max_shard_size: int | None = None
) -> None:
    """Write weights, autoencoder, configurations and tokenizer.

    A new folder is there when it is whole; in one that holds something already each weight file is.

    Args:
        dtype: of the weights in the files; their own if None.
        max_shard_size: bytes in a weight file; all in one `ema.safetensors` (which upstream's scripts read) if None.

    Raises:
        ValueError: the model has adapters, which the layout has no place for.
        NotWritten: the disk is full, and the like.
    """
    if has_adapters(model):
        raise ValueError("the model has adapters: merge_adapters adds them to the weights, save_adapter writes them")
    settings = {**model.config.files.get("generation_config", {}), SECTION: asdict(model.defaults)}
    with atomic_folder(Path(directory)) as folder, writing(Path(directory)):
        model.config.save(folder)
        write_atomically(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
        _save_tokenizer(model.tokenizer, folder)
        model.autoencoder.save(folder)
        save_weights(model.state_dict(), folder, WEIGHTS, dtype, max_shard_size)


def _on_meta(
    make: type[Bagel], folder: Path, autoencoder: Callable[[], Autoencoder], autoencoder_device: str | None = None
) -> Bagel:
    """The folder's model without weights, but for those of its autoencoder. (A path that is no folder: BAGEL-7B.)"""
    config, settings = BAGEL_7B, {}
    tokenizer: Any = StandInTokenizer()
    if folder.is_dir():
        config = BagelConfig.from_directory(folder)
        tokenizer = _tokenizer(folder)
        if (folder / SETTINGS).is_file():
            settings = read_object(folder / SETTINGS)
            config = replace(config, files={**config.files, "generation_config": settings})
    with torch.device(autoencoder_device or _device()):
        made = autoencoder()
    defaults = _defaults(settings, folder / SETTINGS)
    with torch.device("meta"):
        model = make(config, made, tokenizer, defaults)
    model.name_or_path = str(folder)
    return model


def _device() -> torch.device:
    """Where weights are put: the device of the context that the model is loaded in."""
    device = torch.get_default_device()
    return torch.device("cpu") if device.type == "meta" else device


def _tokenizer(folder: Path) -> Any:
    """Raises FileNotFoundError or ValueError naming the file."""
    from transformers import AutoTokenizer, PreTrainedConfig

    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise FileNotFoundError(
            f"{folder / VOCABULARIES[0]} is missing: a checkpoint folder holds it (or vocab.json and merges.txt)"
        )
    if is_lfs_pointer(folder / "merges.txt"):
        raise ValueError(f"{folder / 'merges.txt'} is a Git LFS pointer, not the file itself: {LFS_REMEDY}")
    for name in (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).is_file():
            read_object(folder / name)
    try:
        # An empty configuration: the tokenizer's own files say all, and upstream's config.json is not always valid.
        return AutoTokenizer.from_pretrained(folder, config=PreTrainedConfig())
    except Exception as error:  # the tokenizers library raises no narrower class
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{folder}: its tokenizer files do not make a tokenizer ({said}): copy them again") from error


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Every file that upstream's folder has: its own tools read vocab.json and merges.txt."""
    from tokenizers.models import BPE

    tokenizer.save_pretrained(folder)
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if isinstance(model, BPE):
        model.save(str(folder))


def _description(directory: str) -> Path:
    """A folder with all but the weights; for BAGEL-7B without network the hub id itself."""
    try:
        return local_copy(directory, DESCRIPTION)
    except FileNotFoundError as error:
        if directory != HUB_ID:
            raise
        log.warning("%s: taking BAGEL-7B's known sizes and a stand-in for its tokenizer", error)
        return Path(directory)


def fill(model: torch.nn.Module, files: list[Path], dtype: torch.dtype | None) -> None:
    """Stream safetensors files into a model built on the meta device: one tensor in flight, no second copy.

    Tensors become `dtype`; they keep their own if it is None. Those of heads become fp32 (`Head`).
    """
    expected = dict(model.state_dict())
    found: set[str] = set()
    faults: list[str] = []
    for file in files:
        with open_tensors(file, _device()) as tensors:
            shapes = {name: tensors.shape(name) for name in tensors.names()}
            found.update(shapes)
            faults += misfits(shapes, expected, file.name)
            if not faults:
                for name in shapes:
                    tensor = tensors.tensor(name)
                    wanted = stored_dtype(_owner(model, name), dtype or tensor.dtype)
                    _assign(model, name, tensor.to(wanted))
    faults += [f"missing {name}" for name in expected if name not in found]
    if faults:
        raise ValueError(f"{files[0].parent} does not fit its configuration files:\n  {listed(faults)}")


def _assign(model: torch.nn.Module, name: str, tensor: Tensor) -> None:
    module, leaf = _owner(model, name), name.rpartition(".")[2]
    old = getattr(module, leaf)
    new = torch.nn.Parameter(tensor, requires_grad=old.requires_grad) if isinstance(old, torch.nn.Parameter) else tensor
    setattr(module, leaf, new)


def _owner(model: torch.nn.Module, name: str) -> torch.nn.Module:
    """The module that holds a tensor."""
    return model.get_submodule(name.rpartition(".")[0])


def _files(folder: Path) -> list[Path]:
    """The weight file, or the shards that an index beside it names."""
    index = folder / f"{WEIGHTS}.index.json"
    if index.is_file():
        where = section(read_object(index), "weight_map", index)
        if not where or not all(isinstance(name, str) for name in where.values()):
            raise ValueError(f"{index}: its weight_map names no files: copy or download it again")
        files = [folder / name for name in sorted(set(where.values()))]
    else:
        files = [folder / WEIGHTS]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing: a BAGEL checkpoint folder holds {WEIGHTS} (or shards and their index)"
            )
    return files


def _defaults(settings: dict[str, Any], file: Path) -> BagelDefaults:
    """The project's own section of `generation_config.json`. Upstream's file has none: `PUBLISHED` stands for it."""
    own = section(settings, SECTION, file)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in own.items()} or PUBLISHED
    standard = asdict(BagelDefaults(think_prompt=THINK_PROMPT, ask_think_prompt=ASK_THINK_PROMPT))
    for key, value in values.items():
        if key not in standard:
            raise ValueError(f"{file}: unknown setting {key!r} under {SECTION!r}: it knows {', '.join(standard)}")
        if not _like(value, standard[key]):
            raise ValueError(f"{file}: {key!r} is {value!r}, which is nothing like {standard[key]!r}")
    return BagelDefaults(**{**standard, **values})


def _like(value: Any, example: Any) -> bool:
    """Whether a value has the type (and, for several, the number) of another; whole numbers pass for broken ones."""
    if isinstance(example, tuple):
        return isinstance(value, tuple) and len(value) == len(example) and all(map(_like, value, example))
    kinds = (int, float) if isinstance(example, float) else type(example)
    return isinstance(value, kinds) and not isinstance(value, bool)
