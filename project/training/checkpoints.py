"""Loads trained policies: checkpoint folders, and the `.ckpt` files of runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch

from project.core.atomic_files import atomic_file
from project.core.config_files import unreadable
from project.core.git_lfs import LFS_REMEDY, is_lfs_pointer
from project.models.base import ModelSource, UnifiedModel
from project.models.lora import load_adapter
from project.models.source import checkpoint as checkpoint_source
from project.models.weight_files import finite


def load_policy(checkpoint: str, weights: Literal["ema", "raw"] = "raw", adapter: str | None = None) -> UnifiedModel:
    """The model of a checkpoint folder (or hub id), or the trained policy of a run's `.ckpt` file.

    A `.ckpt` holds trained parameters only; the `config.yaml` of its run folder says what they were trained from.
    `weights` chooses between its last parameters and their moving average. `adapter`: a PEFT folder (or hub id) to put
    over a checkpoint folder.

    Raises:
        FileNotFoundError, ValueError: naming the file and what to do.
    """
    path = Path(checkpoint)
    if path.suffix != ".ckpt":
        model = checkpoint_source(checkpoint).load()
        if adapter is not None:
            load_adapter(model, adapter)
        return model.eval()
    if adapter is not None:
        raise ValueError(f"{path} is a trained policy: an adapter goes over a checkpoint folder")
    saved = read_checkpoint(path)
    config = path.parent.parent / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(
            f"{config} is missing: it tells what {path.name} was trained from; keep the run folder whole"
        )
    state = {name: finite(name, tensor, path) for name, tensor in _state(path, saved, weights).items()}
    return _trained(path, config, state).eval()


def _trained(path: Path, config: Path, state: Mapping[str, torch.Tensor]) -> UnifiedModel:
    from project.core.class_paths import instantiate
    from project.models.lora import LoRA
    from project.training.trainable import prepare

    settings = _model_settings(config)
    adapters = (settings.get("trainable") or {}).get("lora")
    source: ModelSource = instantiate(ModelSource, settings["policy"], [config])  # type: ignore[type-abstract]
    lora = None if adapters is None else instantiate(LoRA, adapters, [config])
    policy = prepare(source.load(), lora)
    fits = {name.removeprefix("policy."): tensor for name, tensor in state.items()}
    unexpected = policy.load_state_dict(fits, strict=False).unexpected_keys
    if unexpected:
        raise ValueError(f"{path} does not belong to the policy of {config}: unexpected {', '.join(unexpected[:5])}")
    return policy


def _model_settings(config: Path) -> dict[str, Any]:
    import yaml

    if problem := unreadable([config]):
        raise ValueError(problem)
    content = yaml.safe_load(config.read_text())
    try:
        settings: dict[str, Any] = content["model"]["init_args"]
    except (KeyError, TypeError):
        raise ValueError(f"{config} has no model.init_args: it is not the configuration of a run") from None
    if "policy" not in settings:
        raise ValueError(f"{config} names no policy under model.init_args")
    return settings


def read_checkpoint(path: Path, contents: bool = True) -> dict[str, Any]:
    """The contents of a run's `.ckpt` file; without `contents` only the shapes of its tensors, which is quick.

    Raises FileNotFoundError or ValueError if it is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    if is_lfs_pointer(path):
        raise ValueError(f"{path} is a Git LFS pointer, not the checkpoint itself: {LFS_REMEDY}")
    try:
        where: dict[str, Any] = {"map_location": "cpu"} if contents else {"map_location": "meta", "mmap": True}
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True, **where)
        _ = checkpoint["state_dict"], checkpoint["updates"]
    except (RuntimeError, KeyError, TypeError, EOFError, OSError, UnpicklingError):
        raise ValueError(
            f"{path} is no complete checkpoint of a run (half-written, damaged, or another format): give another"
        ) from None
    return checkpoint


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Writes a `.ckpt` file in one step."""
    with atomic_file(path) as stream:
        torch.save(checkpoint, stream)


def _state(path: Path, checkpoint: Mapping[str, Any], weights: str) -> dict[str, torch.Tensor]:
    if weights == "raw":
        state: dict[str, torch.Tensor] = checkpoint["state_dict"]
        return state
    averages = [s["average"] for name, s in checkpoint.get("callbacks", {}).items() if name.startswith("EMA")]
    if not averages:
        raise ValueError(
            f"{path} holds no moving average: train with project.callbacks.ema.EMA, or take the raw weights"
        )
    average: dict[str, torch.Tensor] = averages[0]
    return average
