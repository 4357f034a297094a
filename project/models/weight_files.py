"""Weights out of safetensors files, and into one or into shards and the index that names them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from project.core.atomic_files import write_atomically, writing
from project.core.git_lfs import LFS_REMEDY, is_lfs_pointer


class TensorFile:
    """A safetensors file that is open for reading."""

    def __init__(self, file: Path, tensors: Any) -> None:
        self.file = file
        self._tensors = tensors

    def names(self) -> list[str]:
        return list(self._tensors.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors.get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        """One tensor. Raises ValueError, naming it, if some of its numbers are NaN or infinite."""
        return finite(name, self._tensors.get_tensor(name), self.file)


@contextmanager
def open_tensors(file: Path, device: torch.device | str = "cpu") -> Iterator[TensorFile]:
    """A safetensors file whose tensors are put on `device`.

    Raises ValueError, naming the file, if it is a Git LFS pointer, cut off, or no safetensors file.
    """
    if is_lfs_pointer(file):
        raise ValueError(f"{file} is a Git LFS pointer, not the weights themselves: {LFS_REMEDY}")
    try:
        with safe_open(file, framework="pt", device=str(device)) as tensors:
            yield TensorFile(file, tensors)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error}): it is damaged or half-written, copy it again") from None


def finite(name: str, tensor: Tensor, file: Path) -> Tensor:
    """The tensor. Raises ValueError, naming it and its file, if some of its numbers are NaN or infinite."""
    # A sum is finite only if all its terms are (one that overflows is looked at more closely). It costs 0.4 s a GB on
    # one core, so 11 s for the 29 GB of BAGEL-7B, beside minutes of reading them.
    if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise ValueError(
            f"{file}: {name} holds NaN or infinite numbers: the run that wrote it diverged, or the file is damaged; "
            "take an earlier checkpoint, or copy it again"
        )
    return tensor


def misfits(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], file: str = "") -> list[str]:
    """What is wrong with the names and shapes of a file's tensors, in words; missing ones are not among it."""
    place = f" in {file}" if file else ""
    faults = [f"unexpected {name}{place}" for name in found if name not in expected]
    return faults + [
        f"{name}{place} has shape {shape}, not {tuple(expected[name].shape)}"
        for name, shape in found.items()
        if name in expected and shape != tuple(expected[name].shape)
    ]


def listed(faults: Sequence[str], most: int = 40) -> str:
    """One a line."""
    return "\n  ".join([*faults[:most], *([f"... and {len(faults) - most} more"] if len(faults) > most else [])])


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

    Raises:
        NotWritten: the disk is full, and the like. What was there before is whole.
    """
    sizes = {key: tensor.numel() * (dtype or tensor.dtype).itemsize for key, tensor in weights.items()}
    shards = plan_shards(sizes, max_shard_size)
    stem, _, suffix = name.rpartition(".")
    names = [f"{stem}-{n:05d}-of-{len(shards):05d}.{suffix}" for n in range(1, len(shards) + 1)]
    files = dict(zip(names if len(shards) > 1 else [name], shards, strict=True))
    with _partial([folder / file for file in files]) as partial:
        for file, keys in files.items():
            _save({key: weights[key] for key in keys}, partial[folder / file], folder / file, dtype)
    index = f"{name}.index.json"
    written = {*files, *([index] if len(shards) > 1 else [])}
    if len(shards) > 1:
        where = {key: file for file, keys in files.items() for key in keys}
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        write_atomically(folder / index, json.dumps(content, indent=2) + "\n")
    for old in (folder / name, folder / index, *folder.glob(f"{stem}-*-of-*.{suffix}")):
        if old.name not in written:
            old.unlink(missing_ok=True)


def save_tensors(tensors: Mapping[str, Tensor], file: Path, dtype: torch.dtype | None = None) -> None:
    """Write one safetensors file, tensors in `dtype` (their own if None). Raises as `save_weights`."""
    with _partial([file]) as partial:
        _save(tensors, partial[file], file, dtype)


@contextmanager
def _partial(files: Sequence[Path]) -> Iterator[Mapping[Path, Path]]:
    """Where each of `files` is written; all of them take their names when the block ends, or none does if it raises."""
    partial = {file: file.with_name(f".{file.name}.partial") for file in files}
    try:
        yield partial
        for file, written in partial.items():
            with writing(file):
                os.replace(written, file)
    finally:
        for written in partial.values():
            written.unlink(missing_ok=True)


def _save(tensors: Mapping[str, Tensor], place: Path, file: Path, dtype: torch.dtype | None) -> None:
    """Writes at `place` what will be `file`, which an error names."""
    with writing(file):
        # safetensors makes files that only their owner may read; weights are shared like any other file.
        place.touch()
        mode = place.stat().st_mode
        narrowed = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in tensors.items()}
        try:
            save_file(narrowed, place, metadata={"format": "pt"})
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from error
        place.chmod(mode)


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
