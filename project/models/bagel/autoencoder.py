"""What every autoencoder of a BAGEL checkpoint offers, and the two files it lives in.

`ae.safetensors` holds the weights; `ae_config.json` names the architecture and its numbers. Without that file
(upstream has none) the architecture is "flux" with the numbers of the FLUX autoencoder.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from project.core.json_files import read_object
from project.models.weight_files import listed, misfits, open_tensors

CONFIG_FILE = "ae_config.json"
WEIGHTS_FILE = "ae.safetensors"

ARCHITECTURES: Mapping[str, str] = {
    "flux": "project.models.bagel.flux_autoencoder.FluxAutoencoder",
    "patch": "project.models.bagel.patch_autoencoder.PatchAutoencoder",
}
"""Class path of each `architecture` that `ae_config.json` may name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderConfig:
    """The numbers every architecture has."""

    scale_factor: float = 0.3611
    shift_factor: float = 0.1159


class Autoencoder(nn.Module, ABC):
    """Pictures to latents and back; latents = scale_factor * (code - shift_factor).

    Shapes: pixels [N, 3, height, width] in [-1, 1]; latents [N, channels, height / downsample, width / downsample].
    """

    architecture: ClassVar[str]
    config_class: ClassVar[type[AutoencoderConfig]]

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of a latent."""

    @property
    @abstractmethod
    def downsample(self) -> int:
        """Pixels per latent, along each side."""

    @abstractmethod
    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the code, both [N, channels, height / downsample, width / downsample]."""

    @abstractmethod
    def reconstruct(self, code: Tensor) -> Tensor:
        """Pixels of a code."""

    def to_file(self) -> dict[str, Tensor]:
        """Tensors by their names in `ae.safetensors`."""
        return dict(self.state_dict())

    def from_file(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `to_file` for tensors that fit it: a state dict."""
        return dict(tensors)

    def encode(self, pixels: Tensor, *, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """Scaled latents: of the posterior's mean, or with `sample` of one draw from it.

        `generator` (on the CPU: the same numbers on every device) is used for the draw only. Raises ValueError if
        the sides are no multiples of `downsample`.
        """
        height, width = pixels.shape[-2:]
        if height % self.downsample or width % self.downsample:
            raise ValueError(
                f"pictures of {height}x{width} cannot be encoded: make both sides multiples of {self.downsample}"
            )
        code, std = self.posterior(pixels)
        if sample:
            noise = torch.randn(code.shape, generator=generator)
            code = code + std * noise.to(code)
        return self.config.scale_factor * (code - self.config.shift_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels of scaled latents; they may leave [-1, 1] a little."""
        return self.reconstruct(latents / self.config.scale_factor + self.config.shift_factor)

    def save(self, directory: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write both files, each whole or not at all. `dtype` is that of the stored weights."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in self.to_file().items()}
        config = {"architecture": self.architecture, **dataclasses.asdict(self.config)}
        partial_config, partial_weights = (directory / f".{name}.partial" for name in (CONFIG_FILE, WEIGHTS_FILE))
        partial_config.write_text(json.dumps(config, indent=2) + "\n")
        save_file(weights, partial_weights, metadata={"format": "pt"})
        # safetensors makes files that only their owner may read; a checkpoint is shared like any other file.
        shutil.copymode(partial_config, partial_weights)
        os.replace(partial_weights, directory / WEIGHTS_FILE)
        os.replace(partial_config, directory / CONFIG_FILE)

    @classmethod
    def from_directory(cls, directory: str | Path) -> Autoencoder:
        """The autoencoder of a checkpoint, fp32 on the device of the context, in evaluation mode.

        Raises FileNotFoundError without weights, and ValueError (naming the file) for an unreadable file, an
        unknown architecture or key, and tensors that are missing, unexpected or of another shape.
        """
        directory = Path(directory)
        architecture, config = _read_config(directory / CONFIG_FILE)
        with torch.device("meta"):
            autoencoder = architecture(config)
        load_weights(autoencoder, directory / WEIGHTS_FILE, torch.get_default_device())
        return autoencoder.eval()

    @classmethod
    def untrained(cls, directory: str | Path) -> Autoencoder:
        """The architecture of a checkpoint with random weights; only its configuration is read."""
        architecture, config = _read_config(Path(directory) / CONFIG_FILE)
        return architecture(config).eval()


def _read_config(file: Path) -> tuple[type[Autoencoder], AutoencoderConfig]:
    values: dict[str, Any] = {}
    if file.exists():
        values = read_object(file)
    name = values.pop("architecture", "flux")
    if name not in ARCHITECTURES:
        raise ValueError(f'{file}: unknown architecture {name!r}; "architecture" is one of {sorted(ARCHITECTURES)}')
    module, _, class_name = ARCHITECTURES[name].rpartition(".")
    architecture = cast("type[Autoencoder]", getattr(importlib.import_module(module), class_name))
    known = {field.name for field in dataclasses.fields(architecture.config_class)}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"{file}: unknown keys {unknown} for architecture {name!r}; it knows {sorted(known)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return architecture, architecture.config_class(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def load_weights(autoencoder: Autoencoder, file: Path, device: torch.device | str = "cpu") -> None:
    """Put the tensors of a safetensors file into an autoencoder (perhaps on the meta device) as fp32, on `device`.

    Raises FileNotFoundError without the file; ValueError as `open_tensors` and `TensorFile.tensor`, and for all tensors
    at once that are missing, unexpected or of another shape.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not found; the checkpoint is incomplete, download or write it again")
    wanted = autoencoder.to_file()
    with open_tensors(file, device) as tensors:
        found = {name: tensors.shape(name) for name in tensors.names()}
        faults = misfits(found, wanted) + [f"missing {name}" for name in wanted if name not in found]
        if faults:
            raise ValueError(
                f"{file}: {len(faults)} tensors do not fit {type(autoencoder).__name__}:\n  {listed(faults)}"
            )
        weights = {name: tensors.tensor(name).float() for name in found}
    autoencoder.load_state_dict(autoencoder.from_file(weights), assign=True)
