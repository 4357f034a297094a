"""A second backbone, deliberately unlike BAGEL: one dense expert, pixels as latents, no tower.

Latents stand without delimiters. Positions are learned and have three axes: a text counts on all of them, latents along
two, and what follows a picture stands behind its longer side. All this keeps the code outside `project/models` honest:
tasks, samplers and the module must not know a backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from project.models.attention import attention, bias_from_mask
from project.models.base import Defaults, ModelSource
from project.models.cached_transformer import CachedTransformer, Places, SpecialTokens
from project.models.context import Context
from project.models.precision import Head
from project.models.query import Output, Query
from project.models.transforms import normalise
from project.trajectory import Prompt

SPECIAL = ("<end>", "<start>", "<unk>")
WORDS = (*SPECIAL, "a", "red", "green", "circle", "square", "left", "of", "think", "and", "two")


class Words:
    """The few methods of a tokenizer that are used."""

    unk_token_id = WORDS.index("<unk>")
    all_special_ids = tuple(range(len(SPECIAL)))

    def __call__(self, text: str, **options: bool) -> dict[str, list[int]]:
        return {"input_ids": [WORDS.index(w) if w in WORDS else WORDS.index("<unk>") for w in text.split()]}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(WORDS[i] for i in ids if i > 1 or not skip_special_tokens)


class EightByEight:
    """Every picture becomes one of 8x8 pixels."""

    def size(self, height: int, width: int, img_num: int = 1) -> tuple[int, int]:
        return 8, 8

    def resize(self, image: Image.Image, img_num: int = 1) -> Image.Image:
        return image.convert("RGB").resize((8, 8))

    def __call__(self, image: Image.Image, img_num: int = 1) -> Tensor:
        return normalise(torch.from_numpy(np.array(self.resize(image))))


class DenseModel(CachedTransformer):
    """8x8 grey pictures, one latent token per 4x4 pixels."""

    HEADS, SIZE, LAYERS = 2, 8, 2

    def __init__(self) -> None:
        super().__init__()
        hidden = self.HEADS * self.SIZE
        self.tokenizer = Words()
        self.defaults = Defaults(think_prompt="think", height=8, width=8)
        self.special = SpecialTokens(text_start=1, text_end=0)
        self.words = nn.Embedding(len(WORDS), hidden)
        self.positions = nn.ModuleList(nn.Embedding(256, hidden) for _ in range(3))
        self.places = nn.Embedding(4, hidden)
        self.time = nn.Linear(1, hidden)
        self.read_latent = nn.Linear(16, hidden)
        self.qkv = nn.ModuleList(nn.Linear(hidden, 3 * hidden) for _ in range(self.LAYERS))
        self.out = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(self.LAYERS))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 32), nn.GELU(), nn.Linear(32, hidden))
            for _ in range(self.LAYERS)
        )
        self.write_word = Head(hidden, len(WORDS))
        self.write_latent = Head(hidden, 16)

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

    @property
    def picture_transforms(self) -> tuple[EightByEight, EightByEight]:
        return EightByEight(), EightByEight()

    @property
    def layers(self) -> list[nn.Module]:
        return [*self.mlp]

    @property
    def adapter_target(self) -> str:
        return r"(qkv|out)\.\d+"

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

    def picture_block(self, patches: int) -> tuple[Tensor, int]:
        raise ValueError("this backbone has no vision tower")

    def picture_places(self, start_R: Tensor, sizes: Sequence[tuple[int, int]], tokens: int) -> Places:
        raise ValueError("this backbone has no vision tower")

    def latent_block(self) -> Tensor:
        return torch.zeros(0, dtype=torch.long)

    def start_position(self, rows: int) -> Tensor:
        return torch.zeros(rows, 3, dtype=torch.long)

    def text_places(self, start_R: Tensor, visible_RT: Tensor) -> Places:
        offset_RT = (visible_RT.cumsum(1) - 1).clamp_min(0)
        return Places(start_R[:, None] + offset_RT[..., None], start_R + visible_RT.sum(1, keepdim=True))

    def latent_places(self, start_R: Tensor, grid: tuple[int, int]) -> Places:
        rows, columns = (torch.arange(side) for side in grid)
        offset_LA = torch.stack(torch.meshgrid(torch.zeros(1).long(), rows, columns, indexing="ij"), -1).flatten(0, 2)
        return Places(start_R[:, None][:, :0], start_R + max(grid), start_R[:, None] + offset_LA)

    def forward(self, query: Query, contexts: Sequence[Context] = ()) -> Output:
        x = self.words(query.ids_RT) + self._stand(query.position_RT)
        words = x.shape[1]
        if query.latents_RLD is not None:
            drawn = self.read_latent(query.latents_RLD.to(x.dtype)) + self.time(query.sigma_RL[..., None].to(x.dtype))
            drawn = drawn + self.places(query.latent_index_RL) + self._stand(query.latent_position_RL)
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

    def _stand(self, position_RTA: Tensor) -> Tensor:
        return sum(table(position_RTA[..., axis]) for axis, table in enumerate(self.positions))

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
