"""CLIP of transformers, from a folder or the hub: embeddings of pictures and of texts.

Pictures are prepared here, in a few lines of PIL and torch, since transformers' image processor wants torchvision.
Shape suffixes: N pictures or texts, D dimensions, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.models.hub import local_copy

FILES = ("*.json", "*.txt", "*.safetensors")
TOKENIZER_FILES = ("*.json", "*.txt")
"""What is fetched of a model on the hub."""
REMEDY = "take openai/clip-vit-large-patch14"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, red, green, blue, as shares of 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCLIP:
    """A CLIP ready to be asked; its embeddings have length 1."""

    network: Any
    tokenizer: Any

    @property
    def longest_text(self) -> int:
        """Tokens, with the two at its ends."""
        longest: int = self.network.config.text_config.max_position_embeddings
        return longest

    def too_long(self, text: str) -> bool:
        """Whether the end of a text is not read."""
        return len(self.tokenizer(text)["input_ids"]) > self.longest_text

    def of_pictures(self, images: Sequence[Image.Image]) -> Tensor:
        """Embeddings [N, D]."""
        side = self.network.config.vision_config.image_size
        pixels_N3HW = torch.stack([prepare(image, side) for image in images]).to(self.network.device)
        return normalized(self.network.get_image_features(pixel_values=pixels_N3HW).pooler_output)

    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [N, D]. A text that is too long loses its end (see `too_long`)."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest_text, return_tensors="pt"
        ).to(self.network.device)
        return normalized(self.network.get_text_features(**tokens).pooler_output)


def load_clip(model: str, device: torch.device, *, tokenizer: str | None = None, remedy: str = REMEDY) -> LoadedCLIP:
    """The network, frozen, in fp32, with its tokenizer.

    Args:
        model: folder or hub id of a CLIP checkpoint of transformers.
        tokenizer: folder or hub id of its tokenizer; that of the checkpoint if None.
        remedy: what messages say is to be done.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it is of another architecture or not whole, or there is no tokenizer in it.
    """
    from transformers import AutoConfig, CLIPModel, CLIPTokenizer

    folder = local_copy(model, FILES, "CLIP")
    try:
        kind = AutoConfig.from_pretrained(folder).model_type
    except (ValueError, OSError) as error:
        raise ValueError(f"CLIP {model}: no model that transformers knows ({error}): {remedy}") from None
    if kind != "clip":
        raise ValueError(f"CLIP {model}: is a {kind} model, not clip: {remedy}")
    # Loading must not move the run's randomness.
    with torch.random.fork_rng():
        loaded: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    network, told = loaded
    if told["missing_keys"]:
        raise ValueError(f"CLIP {model}: lacks the weights {', '.join(sorted(told['missing_keys'])[:3])}: {remedy}")
    words = folder if tokenizer is None else local_copy(tokenizer, TOKENIZER_FILES, "tokenizer")
    if not any((words / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise ValueError(f"CLIP {model}: {words} holds no tokenizer: name a folder or a hub id that does as tokenizer")
    return LoadedCLIP(
        network=network.to(device).eval().requires_grad_(False), tokenizer=CLIPTokenizer.from_pretrained(words)
    )


def prepare(image: Image.Image, side: int) -> Tensor:
    """Normalized pixels [3, side, side]: the middle of the picture, whose shorter side becomes `side` (bicubic)."""
    scale = side / min(image.size)
    width, height = (max(int(length * scale), side) for length in image.size)
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    middle = np.array(scaled.crop((left, top, left + side, top + side)))
    pixels_HW3 = (torch.from_numpy(middle).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return pixels_HW3.permute(2, 0, 1)


def normalized(embedding: Tensor) -> Tensor:
    """Embeddings [..., D] of length 1."""
    return torch.nn.functional.normalize(embedding, dim=-1)
