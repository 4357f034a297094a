"""Tensors on disk: one safetensors file, or shards with an index beside them; every file is whole or not there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(
    folder: Path,
    name: str,
    tensors: Mapping[str, Tensor],
    *,
    like: Path,
    dtype: torch.dtype | None = None,
    max_bytes: int | None = None,
) -> None:
    """Write `name` (which ends in .safetensors), or shards of it and `name`.index.json, which is written last.

    One shard is converted at a time. What an earlier call left under these names is replaced.

    Args:
        like: a file whose permissions the new ones get: safetensors makes files that only their owner may read, and
            a checkpoint is shared like any other file.
        dtype: of the floating-point tensors in the file; their own if None.
        max_bytes: largest size of a file (one tensor may be larger); one file if None.
    """
    groups = _groups(tensors, dtype, max_bytes)
    stem, index = name.removesuffix(".safetensors"), folder / f"{name}.index.json"
    old = _shards_of(folder, stem)
    if len(groups) == 1:
        _save(folder / name, tensors, groups[0], dtype, like)
        # Only now: until then the index and its shards are the checkpoint.
        index.unlink(missing_ok=True)
        for file in old:
            file.unlink()
        return
    index.unlink(missing_ok=True)
    files = [f"{stem}-{n:05d}-of-{len(groups):05d}.safetensors" for n in range(1, len(groups) + 1)]
    for file, group in zip(files, groups, strict=True):
        _save(folder / file, tensors, group, dtype, like)
    content = {
        "metadata": {"total_size": sum(_bytes(tensor, dtype) for tensor in tensors.values())},
        "weight_map": {key: file for file, group in zip(files, groups, strict=True) for key in group},
    }
    partial = folder / f".{index.name}.partial"
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, index)
    for path in (folder / name, *(path for path in old if path.name not in files)):
        path.unlink(missing_ok=True)


def parse_size(text: str) -> int | None:
    """Bytes of "5GB", "500MB", "2 GiB" or "1000"; None for "0", which means no limit. Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text, re.IGNORECASE)
    if not found:
        raise ValueError(f"{text!r} is no size: write for instance 5GB or 500MB, or 0 for one file")
    unit = (found[2] or "").lower()
    base = 1024 if unit.endswith("i") else 1000
    number = int(float(found[1]) * base ** ("kmg".index(unit[0]) + 1 if unit else 0))
    return number or None


def _groups(tensors: Mapping[str, Tensor], dtype: torch.dtype | None, max_bytes: int | None) -> list[list[str]]:
    """Names in their order, cut where a file would become too large."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        size = _bytes(tensor, dtype)
        if max_bytes is not None and groups[-1] and filled + size > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def _save(path: Path, tensors: Mapping[str, Tensor], names: list[str], dtype: torch.dtype | None, like: Path) -> None:
    ready = {name: tensors[name].detach().to("cpu", _dtype(tensors[name], dtype)).contiguous() for name in names}
    partial = path.with_name(f".{path.name}.partial")
    save_file(ready, partial, metadata={"format": "pt"})
    shutil.copymode(like, partial)
    os.replace(partial, path)


def _dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _bytes(tensor: Tensor, dtype: torch.dtype | None) -> int:
    return tensor.numel() * _dtype(tensor, dtype).itemsize


def _shards_of(folder: Path, stem: str) -> list[Path]:
    pattern = re.compile(re.escape(stem) + r"-\d{5}-of-\d{5}\.safetensors")
    return [path for path in folder.glob(f"{stem}-*.safetensors") if pattern.fullmatch(path.name)]
