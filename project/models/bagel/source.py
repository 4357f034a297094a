"""BAGEL checkpoints as YAML names them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from project.models.bagel.loading import load_bagel, outline_bagel, random_bagel
from project.models.bagel.model import Bagel
from project.models.base import ModelSource
from project.models.lora import add_in


class BagelCheckpoint(ModelSource):
    """A checkpoint folder in BAGEL's layout, or a hub id.

    Args:
        directory: e.g. `data/shapes/umm` or `ByteDance-Seed/BAGEL-7B-MoT`.
        adapter: a PEFT LoRA adapter (folder or hub id) that is added to the weights.
        dtype: of the weights in memory, except those of the heads and the autoencoder, which are fp32; trainable ones
            are widened to fp32 by the module that trains them.
        gradient_checkpointing: recompute layers in the backward pass to save activation memory.
        compiled: let torch.compile fuse the norms, rotary embeddings, SwiGLU and residuals of the layers. Results
            differ by rounding. It needs a C++ compiler, and the first updates take longer, because kernels are made
            then. On a CPU it hardly pays. On a GPU it has not been measured.
        freeze_und: train the generation expert and the output head alone, as upstream's option of that name.
        random_weights: read the configuration files and the tokenizer only, to measure time and memory before the
            weights are there.
    """

    def __init__(
        self,
        directory: str,
        adapter: str | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
        compiled: bool = False,
        freeze_und: bool = False,
        random_weights: bool = False,
    ) -> None:
        self.directory = directory
        self.adapter = adapter
        self.dtype = dtype
        self.gradient_checkpointing = gradient_checkpointing
        self.compiled = compiled
        self.freeze_und = freeze_und
        self.random_weights = random_weights

    def load(self) -> Bagel:
        return self.load_as(getattr(torch, self.dtype))

    def load_as(self, dtype: torch.dtype | None) -> Bagel:
        if self.random_weights:
            model = random_bagel(Bagel, self.directory, dtype or getattr(torch, self.dtype))
        else:
            model = load_bagel(Bagel, self.directory, dtype)
            if self.adapter is not None:
                add_in(model, self.adapter)
        return self._set_up(model)

    def outline(self) -> Bagel:
        return self._set_up(outline_bagel(Bagel, self.directory, getattr(torch, self.dtype)))

    def _set_up(self, model: Bagel) -> Bagel:
        model.gradient_checkpointing = self.gradient_checkpointing
        model.compiled = self.compiled
        model.freeze_und = self.freeze_und
        return model

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any((folder / name).exists() for name in ("llm_config.json", "vit_config.json", "ema.safetensors"))
