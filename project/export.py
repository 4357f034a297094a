"""A trained policy in the formats that other tools read: a PEFT adapter, or a whole checkpoint with it merged in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from project.models.base import UnifiedModel
from project.models.lora import adapter_weights, merge_adapters, save_adapter


def export(
    model: UnifiedModel,
    out: str | Path,
    form: Literal["peft", "merged"],
    dtype: torch.dtype | None = None,
    max_shard_size: str | int = "5GB",
) -> None:
    """Write `out`, which appears whole or not at all.

    Args:
        model: with its adapters, if it was trained with any; merging takes them away.
        out: folder, new or empty.
        form: the adapter alone, or the checkpoint layout of the backbone.
        dtype: of merged weights; that of the model if None.
        max_shard_size: of a weight file.

    Raises:
        ValueError: if `out` holds something, or there is no adapter to write.
    """

    def write(folder: Path) -> None:
        if form == "peft":
            save_adapter(model, str(folder))
            return
        if dtype is not None:
            model.to(dtype)
        merge_adapters(model)
        model.save_pretrained(folder, max_shard_size=max_shard_size)

    if form == "peft" and not adapter_weights(model):
        raise ValueError("this run trained whole weights, there is no adapter: export with --format bagel")
    write_whole(Path(out), write)


def write_whole(out: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside `out`, then give it its name.

    Raises ValueError if `out` holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: name a new folder with --out")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write(partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
