"""A second backbone, deliberately unlike BAGEL: one dense expert, learned positions, pixels as latents, no tower.

It keeps the code outside `project/models` honest: tasks, samplers and the module must not know a backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from project.models.attention import attention, bias_from_mask
from project.models.base import Defaults, ModelSource, SpecialTokens, UnifiedModel
from project.models.context import Context
from project.models.query import Output, Query
from project.trajectory import Prompt

SPECIAL = ("<end>", "<start>", "<image>", "</image>", "<unk>")
WORDS = (*SPECIAL, "a", "red", "green", "circle", "square", "left", "of", "think", "and", "two")


class Words:
    """The few methods of a tokenizer that are used."""

    unk_token_id = WORDS.index("<unk>")
    all_special_ids = tuple(range(len(SPECIAL)))

    def __call__(self, text: str, **options: bool) -> dict[str, list[int]]:
        return {"input_ids": [WORDS.index(w) if w in WORDS else WORDS.index("<unk>") for w in text.split()]}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(WORDS[i] for i in ids if i > 3 or not skip_special_tokens)


class DenseModel(UnifiedModel):
    """8x8 grey pictures, one latent token per 4x4 pixels."""

    HEADS, SIZE, LAYERS = 2, 8, 2

    def __init__(self) -> None:
        super().__init__()
        hidden = self.HEADS * self.SIZE
        self.tokenizer = Words()
        self.defaults = Defaults(think_prompt="think", height=8, width=8)
        self.special = SpecialTokens(text_start=1, text_end=0, image_start=2, image_end=3)
        self.words = nn.Embedding(len(WORDS), hidden)
        self.positions = nn.Embedding(256, hidden)
        self.places = nn.Embedding(4, hidden)
        self.time = nn.Linear(1, hidden)
        self.read_latent = nn.Linear(16, hidden)
        self.qkv = nn.ModuleList(nn.Linear(hidden, 3 * hidden) for _ in range(self.LAYERS))
        self.out = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(self.LAYERS))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 32), nn.GELU(), nn.Linear(32, hidden))
            for _ in range(self.LAYERS)
        )
        self.write_word = nn.Linear(hidden, len(WORDS))
        self.write_latent = nn.Linear(hidden, 16)

    @classmethod
    def from_pretrained(cls, directory: str) -> DenseModel:
        model = cls()
        model.load_state_dict(torch.load(Path(directory) / "dense.pt", weights_only=True))
        return model

    def save_pretrained(
        self, directory: str | Path, dtype: torch.dtype | None = None, max_shard_size: int | None = None
    ) -> None:
        torch.save(self.state_dict(), Path(directory) / "dense.pt")

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        return self.LAYERS, self.HEADS, self.SIZE

    @property
    def latent_size(self) -> int:
        return 16

    def latent_grid(self, height: int, width: int) -> tuple[int, int]:
        return height // 4, width // 4

    def latent_index(self, grid: tuple[int, int]) -> Tensor:
        return torch.arange(grid[0] * grid[1])

    def encode_image(self, pixels_NCHW: Tensor) -> Tensor:
        grey = pixels_NCHW.mean(1)
        return grey.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).flatten(1, 2)

    def decode_latents(self, latents_NLD: Tensor, grid: tuple[int, int]) -> Tensor:
        tiles = latents_NLD.unflatten(1, grid).unflatten(3, (4, 4)).transpose(2, 3)
        return tiles.flatten(3).flatten(1, 2)[:, None].expand(-1, 3, -1, -1)

    def picture_patches(self, pixels_CHW: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError("this backbone has no vision tower")

    def forward(self, query: Query, contexts: Sequence[Context] = ()) -> Output:
        x = self.words(query.ids_RT) + self.positions(query.position_RT)
        words = x.shape[1]
        if query.latents_RLD is not None:
            drawn = self.read_latent(query.latents_RLD.to(x.dtype)) + self.time(query.sigma_RL[..., None].to(x.dtype))
            drawn = drawn + self.places(query.latent_index_RL) + self.positions(query.latent_position_RL)
            x = torch.cat([x, drawn], 1)
        rows = query.rows or (len(x) // max(len(contexts), 1),) * max(len(contexts), 1)
        masks = self._masks(query, x.shape[1], contexts, rows)
        keys_values = []
        for layer in range(self.LAYERS):
            q, k, v = self.qkv[layer](x).unflatten(-1, (3 * self.HEADS, -1)).transpose(1, 2).chunk(3, 1)
            parts, start = [], 0
            for context, count, bias in zip(contexts or (None,), rows, masks, strict=True):
                chunk = slice(start, start + count)
                pair = (k[chunk], v[chunk]) if context is None else context.extend(layer, k[chunk], v[chunk])
                parts.append(attention(q[chunk], *pair, bias))
                start += count
            x = x + self.out[layer](torch.cat(parts).transpose(1, 2).flatten(2))
            x = x + self.mlp[layer](x)
            keys_values.append((k, v))
        logits = None
        if query.logits is not None:
            logits = self.write_word(x[:, words - 1] if isinstance(query.logits, str) else x[:, :words][query.logits])
        velocity = None if query.latents_RLD is None else self.write_latent(x[:, words:])
        return Output(logits=logits, velocity_RLD=velocity, keys_values=keys_values)

    @staticmethod
    def _masks(query: Query, length: int, contexts: Sequence[Context], rows: Sequence[int]) -> list[Tensor]:
        count = query.ids_RT.shape[0]
        visible = query.visible_RT if query.visible_RT is not None else torch.ones_like(query.ids_RT).bool()
        visible = torch.cat([visible, visible.new_ones(count, length - visible.shape[1])], 1)
        if isinstance(query.mask, Tensor):
            own = query.mask
        else:
            order = torch.ones(length, length).bool()
            own = (order.tril() if query.mask == "causal" else order) & visible[:, None] | torch.eye(length).bool()
        masks, start = [], 0
        for context, number in zip(contexts or (None,), rows, strict=True):
            seen = own[start : start + number]
            if context is not None:
                past = context.visible_RS.repeat_interleave(number // context.rows, 0)
                seen = torch.cat([past[:, None].expand(-1, length, -1), seen], 2)
            masks.append(bias_from_mask(seen)[:, None])
            start += number
        return masks


class NewDenseModel(ModelSource):
    """Random weights."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def load(self) -> DenseModel:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return DenseModel()


def grey_picture(prompt: Prompt) -> np.ndarray:
    """A source for editing tasks, of a size that no backbone draws."""
    return np.full((10, 12, 3), 10 * len(prompt.text) % 256, dtype=np.uint8)


def brightness(prompts: list[str], completions: list[str], images: list, **columns: list) -> list[float]:
    """A reward function."""
    return [sum(image.getpixel((0, 0))) / 765 for image in images]
