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
from project.models.lora import LoRA, adapter_parameters, add_lora, load_adapter
from project.models.source import checkpoint as checkpoint_source
from project.models.weight_files import finite, listed, misfits


def load_policy(
    checkpoint: str,
    weights: Literal["ema", "raw"] = "raw",
    adapter: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | Literal["stored"] | None = None,
) -> UnifiedModel:
    """The model of a checkpoint folder (or hub id), or the trained policy of a run's `.ckpt` file.

    A `.ckpt` holds trained parameters only; the `config.yaml` of its run folder says what they were trained from.
    Weights are read one by one, in their type and onto their device: memory never holds more than them and one tensor.

    Args:
        weights: of a `.ckpt`, its last parameters or their moving average.
        adapter: a PEFT folder (or hub id) to put over a checkpoint folder.
        device: where the weights are put.
        dtype: of the weights in memory, adapters too. None: float32, or for a `.ckpt` what its run had. "stored": the
            type that a folder's files have, so that nothing is widened; for a `.ckpt` as None.

    Raises:
        FileNotFoundError, ValueError: naming the file and what to do.
    """
    path = Path(checkpoint)
    wanted = None if dtype == "stored" else dtype
    if path.suffix != ".ckpt":
        source = checkpoint_source(checkpoint)
        with torch.device(device):
            model = (source.load() if dtype is None else source.load_as(wanted)).to(device)
        if adapter is not None:
            load_adapter(model, adapter)
            _narrow_adapters(model, wanted)
        return model.eval()
    if adapter is not None:
        raise ValueError(f"{path} is a trained policy: an adapter goes over a checkpoint folder")
    saved = read_checkpoint(path)
    config = path.parent.parent / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(
            f"{config} is missing: it tells what {path.name} was trained from; keep the run folder whole"
        )
    with torch.device(device):
        policy = _base(config, wanted).to(device)
    _narrow_adapters(policy, wanted)
    state = {name.removeprefix("policy."): tensor for name, tensor in _state(path, saved, weights).items()}
    _fill(policy, state, path, config, wanted)
    return policy.eval()


def _base(config: Path, dtype: torch.dtype | None) -> UnifiedModel:
    """What a run was trained from, with new adapters if it trained adapters."""
    from project.core.class_paths import instantiate

    settings = _model_settings(config)
    adapters = (settings.get("trainable") or {}).get("lora")
    source: ModelSource = instantiate(ModelSource, settings["policy"], [config])  # type: ignore[type-abstract]
    policy = source.load() if dtype is None else source.load_as(dtype)
    if adapters is not None:
        add_lora(policy, instantiate(LoRA, adapters, [config]))
    return policy


def _narrow_adapters(model: UnifiedModel, dtype: torch.dtype | None) -> None:
    """They are made in fp32."""
    for parameter in adapter_parameters(model).values():
        parameter.data = parameter.data.to(dtype or parameter.dtype)


def _fill(
    policy: UnifiedModel, state: Mapping[str, torch.Tensor], path: Path, config: Path, dtype: torch.dtype | None
) -> None:
    """Puts trained tensors into the policy, one by one: in their own type, or in that of the policy if it was chosen.

    Raises ValueError, listing all of them, for tensors that do not fit.
    """
    own = policy.state_dict(keep_vars=True)
    if faults := misfits({name: tuple(tensor.shape) for name, tensor in state.items()}, own):
        raise ValueError(f"{path} does not belong to the policy of {config}:\n  {listed(faults)}")
    for name, tensor in state.items():
        kept = tensor.dtype if dtype is None else own[name].dtype
        own[name].data = finite(name, tensor, path).to(own[name].device, kept)


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

    Tensors are read from the file when they are used, so that those of the optimizer take no memory.
    Raises FileNotFoundError or ValueError if it is none.
    """
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder, such as sharded checkpoints are: runs of this project write one file under every "
            "strategy, which goes on under any other: give a file such as last.ckpt"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    if is_lfs_pointer(path):
        raise ValueError(f"{path} is a Git LFS pointer, not the checkpoint itself: {LFS_REMEDY}")
    try:
        place = "cpu" if contents else "meta"
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location=place, mmap=True)
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
