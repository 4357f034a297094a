"""The numbers of a BAGEL checkpoint, read from its configuration files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from project.core.json_files import positive, read_object, section
from project.models.base import Defaults
from project.models.hub import local_copy

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BagelDefaults(Defaults):
    """How a checkpoint is meant to be used; kept in its `generation_config.json`.

    Attributes:
        vae_sides, vit_sides: longest and shortest side [pixels] of pictures that the autoencoder and the vision
            encoder read, and what both sides are multiples of.
    """

    vae_sides: tuple[int, int, int] = (1024, 512, 16)
    vit_sides: tuple[int, int, int] = (980, 224, 14)


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The SigLIP tower. `num_layers` counts the layers held by the checkpoint: one less than the file says."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int


@dataclass(frozen=True, kw_only=True)
class BagelConfig:
    """Sizes of the language model, its two experts, the vision tower and the latent tokens."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    vision: VisionConfig
    latent_patch_size: int = 2
    max_latent_size: int = 64
    vit_max_num_patch_per_side: int = 70
    z_channels: int = 16
    vae_downsample: int = 8
    position_scale: float = 1.0
    """Factor on the frozen sin-cos position tables when they are made anew (a loaded checkpoint brings its own)."""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False, repr=False)
    """The configuration files that this was read from: other tools want what is not used here when they are saved."""

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def latent_size(self) -> int:
        """Values of one latent token."""
        return self.latent_patch_size**2 * self.z_channels

    @property
    def pixels_per_latent(self) -> int:
        """Side of the square of pixels that one latent token covers."""
        return self.latent_patch_size * self.vae_downsample

    @classmethod
    def from_directory(cls, directory: str | Path) -> BagelConfig:
        """Read `llm_config.json` and `vit_config.json` (authoritative) and what only `config.json` holds.

        Upstream's root `config.json` was once invalid JSON; BAGEL-7B's numbers are then taken, with a warning.
        Raises FileNotFoundError or ValueError naming the file and, where there is one, the key.
        """
        files = {name: Path(directory) / f"{name}.json" for name in ("llm_config", "vit_config", "config")}
        llm, vit = (
            read_object(files[name], "a BAGEL checkpoint folder (as well as vit_config.json and ema.safetensors)")
            for name in ("llm_config", "vit_config")
        )
        try:
            root = read_object(files["config"], "a BAGEL checkpoint folder")
        except (FileNotFoundError, ValueError) as error:
            log.warning("%s (taking BAGEL-7B's numbers for what only this file tells)", error)
            root = {}
        vae = section(root, "vae_config", files["config"])
        extra: dict[str, Any] = {
            name: positive(root, name, files["config"])
            for name in ("latent_patch_size", "max_latent_size", "vit_max_num_patch_per_side", "position_scale")
            if name in root
        }
        extra |= {
            field: positive(vae, name, files["config"])
            for field, name in (("z_channels", "z_channels"), ("vae_downsample", "downsample"))
            if name in vae
        }
        llm_number = {
            field: positive(llm, name, files["llm_config"])
            for field, name in (
                ("hidden_size", "hidden_size"),
                ("intermediate_size", "intermediate_size"),
                ("num_layers", "num_hidden_layers"),
                ("num_heads", "num_attention_heads"),
                ("num_kv_heads", "num_key_value_heads"),
                ("vocab_size", "vocab_size"),
                ("rms_norm_eps", "rms_norm_eps"),
                ("rope_theta", "rope_theta"),
            )
        }
        hidden, heads, shared = (llm_number[name] for name in ("hidden_size", "num_heads", "num_kv_heads"))
        if hidden % heads or heads % shared:
            raise ValueError(
                f"{files['llm_config']}: hidden_size {hidden}, num_attention_heads {heads}, num_key_value_heads "
                f"{shared}: each must be a multiple of the next"
            )
        vision = {
            name: positive(vit, name, files["vit_config"])
            for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
        }
        return cls(
            **llm_number,
            vision=VisionConfig(
                hidden_size=vision["hidden_size"],
                intermediate_size=vision["intermediate_size"],
                num_layers=vision["num_hidden_layers"] - 1,
                num_heads=vision["num_attention_heads"],
                patch_size=vision["patch_size"],
            ),
            files={"llm_config": llm, "vit_config": vit, "config": root},
            **extra,
        )

    @classmethod
    def from_pretrained(cls, directory: str) -> BagelConfig:
        """The same for a hub id too, under the name by which peft asks for the configuration of an adapter's base."""
        return cls.from_directory(local_copy(directory, ["*.json"]))

    def save(self, directory: str | Path) -> None:
        """Write the three configuration files in the upstream layout."""
        llm = {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "qk_norm": True,
            "tie_word_embeddings": False,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "vocab_size": self.vocab_size,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
        }
        vit = {
            "model_type": "siglip_vision_model",
            "hidden_size": self.vision.hidden_size,
            "intermediate_size": self.vision.intermediate_size,
            "num_hidden_layers": self.vision.num_layers + 1,
            "num_attention_heads": self.vision.num_heads,
            "patch_size": self.vision.patch_size,
            "image_size": self.vision.patch_size * self.vit_max_num_patch_per_side,
        }
        llm, vit = {**self.files.get("llm_config", {}), **llm}, {**self.files.get("vit_config", {}), **vit}
        root = {
            **self.files.get("config", {}),
            "architectures": ["BagelForConditionalGeneration"],
            "model_type": "bagel",
            "llm_config": llm,
            "vit_config": vit,
            "vae_config": {"z_channels": self.z_channels, "downsample": self.vae_downsample},
            "latent_patch_size": self.latent_patch_size,
            "max_latent_size": self.max_latent_size,
            "vit_max_num_patch_per_side": self.vit_max_num_patch_per_side,
            "connector_act": "gelu_pytorch_tanh",
            "position_scale": self.position_scale,
        }
        for name, content in (("llm_config", llm), ("vit_config", vit), ("config", root)):
            (Path(directory) / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


BAGEL_7B = BagelConfig(
    hidden_size=3584,
    intermediate_size=18944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    vocab_size=152064,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    vision=VisionConfig(hidden_size=1152, intermediate_size=4304, num_layers=26, num_heads=16, patch_size=14),
)
"""The sizes of ByteDance-Seed/BAGEL-7B-MoT."""
