"""Weights into one safetensors file, or into shards and the index that names them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def save_weights(
    weights: Mapping[str, Tensor],
    folder: Path,
    name: str,
    dtype: torch.dtype | None = None,
    max_shard_size: int | None = None,
) -> None:
    """Write `name` (say model.safetensors), or model-00001-of-00003.safetensors ... and model.safetensors.index.json.

    No more than one shard is held in memory beside the weights. Files take their final names when all of them are
    complete; what an earlier writing left under other names is then removed.

    Args:
        dtype: of the tensors in the files; each one's own if None.
        max_shard_size: bytes of tensors in a file (a larger tensor has a file of its own); no limit if None.
    """
    sizes = {key: tensor.numel() * (dtype or tensor.dtype).itemsize for key, tensor in weights.items()}
    shards = plan_shards(sizes, max_shard_size)
    stem, _, suffix = name.rpartition(".")
    names = [f"{stem}-{n:05d}-of-{len(shards):05d}.{suffix}" for n in range(1, len(shards) + 1)]
    files = dict(zip(names if len(shards) > 1 else [name], shards, strict=True))
    for file, keys in files.items():
        save_tensors({key: weights[key] for key in keys}, folder / f".{file}.partial", dtype)
    index = f"{name}.index.json"
    if len(shards) > 1:
        where = {key: file for file, keys in files.items() for key in keys}
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        (folder / f".{index}.partial").write_text(json.dumps(content, indent=2) + "\n")
    written = {*files, *([index] if len(shards) > 1 else [])}
    for file in written:
        os.replace(folder / f".{file}.partial", folder / file)
    for old in (folder / name, folder / index, *folder.glob(f"{stem}-*-of-*.{suffix}")):
        if old.name not in written:
            old.unlink(missing_ok=True)


def save_tensors(tensors: Mapping[str, Tensor], file: Path, dtype: torch.dtype | None = None) -> None:
    """Write one safetensors file, tensors in `dtype` (their own if None)."""
    # safetensors makes files that only their owner may read; weights are shared like any other file.
    file.touch()
    mode = file.stat().st_mode
    save_file(
        {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in tensors.items()},
        file,
        metadata={"format": "pt"},
    )
    file.chmod(mode)


def plan_shards(sizes: Mapping[str, int], limit: int | None) -> Sequence[Sequence[str]]:
    """Names of the tensors of each file, in order, no file above `limit` bytes unless by a single tensor."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if limit is not None and shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards
