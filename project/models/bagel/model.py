"""BAGEL: the unified model of the paper, from the embedded checkpoint to BAGEL-7B-MoT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from project.models.bagel.attended import attended_by
from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.config import BagelConfig, BagelDefaults
from project.models.bagel.image_transform import ImageTransform
from project.models.bagel.layers import (
    Connector,
    DecoderLayer,
    PositionTable,
    RMSNorm,
    TimeEmbedder,
    VisionModel,
)
from project.models.bagel.loading import load_bagel, save_bagel
from project.models.cached_transformer import CachedTransformer, Places, SpecialTokens
from project.models.context import Context
from project.models.precision import Head, autocast_off, never_narrower, widened
from project.models.query import Output, Pictures, Query
from project.models.sizes import Sizes
from project.models.transforms import patchify, unpatchify

EXPERTS = r"language_model\.model\.layers\.\d+\.(self_attn|mlp|mlp_moe_gen)\.(q|k|v|o|gate|up|down)_proj(_moe_gen)?"
"""Names of the linear layers of both experts."""


class _Decoder(nn.Module):
    """The stack of layers under upstream's name `language_model.model`."""

    def __init__(self, config: BagelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.norm_moe_gen = RMSNorm(config.hidden_size, config.rms_norm_eps)


class _LanguageModel(nn.Module):
    def __init__(self, config: BagelConfig) -> None:
        super().__init__()
        self.model = _Decoder(config)
        self.lm_head = Head(config.hidden_size, config.vocab_size, bias=False)


@dataclass(frozen=True, kw_only=True)
class BagelTokens(SpecialTokens):
    """Delimiters of texts and of pictures."""

    image_start: int
    image_end: int


class Bagel(CachedTransformer):
    """A mixture of two transformers (understanding and generation) with shared attention.

    Args:
        config: sizes.
        autoencoder: pixels to latents and back; always frozen and in fp32, not part of the policy's parameters.
        tokenizer: a Hugging Face tokenizer that knows the four delimiters.
        defaults: how the checkpoint is meant to be used.
    """

    special: BagelTokens
    defaults: BagelDefaults
    gradient_checkpointing = False
    """Recompute each layer in the backward pass instead of keeping its activations."""
    compiled = False
    """Let torch.compile fuse what the layers do token by token."""
    freeze_und = False
    """Train the generation expert (and the output head) alone: no gradient reaches the understanding expert."""

    def __init__(self, config: BagelConfig, autoencoder: Autoencoder, tokenizer: Any, defaults: BagelDefaults) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.defaults = defaults
        self.special = _special_tokens(tokenizer, config.vocab_size)
        self.language_model = _LanguageModel(config)
        self.time_embedder = TimeEmbedder(config.hidden_size)
        self.vae2llm = nn.Linear(config.latent_size, config.hidden_size)
        self.llm2vae = Head(config.hidden_size, config.latent_size)
        self.latent_pos_embed = PositionTable(config.max_latent_size, config.hidden_size, config.position_scale)
        self.vit_model = VisionModel(config.vision, config.vit_max_num_patch_per_side)
        self.connector = Connector(config.vision.hidden_size, config.hidden_size)
        self.vit_pos_embed = PositionTable(config.vit_max_num_patch_per_side, config.hidden_size, config.position_scale)
        # Kept outside the module tree: the checkpoint's `ema.safetensors` and every optimizer leave it alone.
        self._frozen = {"autoencoder": autoencoder.eval().requires_grad_(False)}

    @property
    def autoencoder(self) -> Autoencoder:
        return self._frozen["autoencoder"]

    def _apply(self, fn: Any, recurse: bool = True) -> Bagel:
        # 84 M parameters at full size: fp32 costs little, and bf16 would round pictures and what is read of them.
        self.autoencoder._apply(never_narrower(fn))
        result: Bagel = super()._apply(fn, recurse)
        return result

    @classmethod
    def from_pretrained(cls, directory: str, dtype: str | None = None) -> Bagel:
        """Load a folder in the upstream layout.

        Args:
            directory: folder with llm_config.json, vit_config.json, ema.safetensors, ae.safetensors and a tokenizer.
            dtype: e.g. "bfloat16", of all weights but those of the heads and the autoencoder, which are fp32; fp32 if
                None (half-precision files are widened).
        """
        return load_bagel(cls, directory, getattr(torch, dtype) if dtype else torch.float32)

    def save_pretrained(
        self, directory: str | Path, dtype: torch.dtype | None = None, max_shard_size: int | None = None
    ) -> None:
        """Write a folder in the upstream layout. Arguments and errors as of `save_bagel`."""
        save_bagel(self, directory, dtype, max_shard_size)

    @property
    def layers(self) -> list[nn.Module]:
        return [*self.language_model.model.layers, *self.vit_model.vision_model.encoder.layers]

    # ----------------------------------------------------------------- the network

    def forward(self, query: Query, contexts: Sequence[Context] = ()) -> Output:
        und, gen = self._embed(query)
        rows = query.rows or (und.shape[0] // max(len(contexts), 1),) * max(len(contexts), 1)
        visible, position = query.visible_RT, query.position_RT
        if gen is not None:
            assert query.latent_position_RL is not None
            position = torch.cat([position, query.latent_position_RL], dim=1)
            if visible is not None:
                visible = torch.cat([visible, visible.new_ones(gen.shape[:2])], dim=1)
        attended = attended_by(position, visible, query.mask, contexts, rows, self.config, und.dtype)
        if self.freeze_und:
            attended, und = replace(attended, freeze_und=True), und.detach()
        keys_values = []
        layers = self.language_model.model.layers
        for number, layer in enumerate(layers, start=1):
            # After the last layer only logits read the understanding stream.
            read_und = number < len(layers) or query.logits is not None
            fed = (und, gen, attended, read_und, self.compiled)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                und, gen, key, value = checkpoint(layer, *fed, use_reentrant=False)
            else:
                und, gen, key, value = layer(*fed)
            keys_values.append((key, value))
        logits = None
        if query.logits is not None:
            marked = und[:, -1] if isinstance(query.logits, str) else und[query.logits]
            normed = self.language_model.model.norm(marked)
            logits = self.language_model.lm_head(normed.detach() if self.freeze_und else normed)
        velocity = None if gen is None else self.llm2vae(self.language_model.model.norm_moe_gen(gen))
        return Output(logits=logits, velocity_RLD=velocity, keys_values=keys_values)

    def _embed(self, query: Query) -> tuple[Tensor, Tensor | None]:
        und_RTH = self.language_model.model.embed_tokens(query.ids_RT)
        if query.pictures is not None:
            und_RTH = self._place_pictures(und_RTH, query.pictures)
        if query.latents_RLD is None:
            return und_RTH, None
        assert query.sigma_RL is not None and query.latent_index_RL is not None
        gen_RLH = self.vae2llm(query.latents_RLD.to(und_RTH.dtype))
        gen_RLH = gen_RLH + self.time_embedder(query.sigma_RL) + self.latent_pos_embed(query.latent_index_RL)
        return und_RTH, gen_RLH.to(und_RTH.dtype)

    def _place_pictures(self, und_RTH: Tensor, pictures: Pictures) -> Tensor:
        features = self.vit_model.vision_model(pictures.patches_IMD, pictures.index_IM, pictures.visible_IM)
        features = self.connector(features) + self.vit_pos_embed(pictures.index_IM)
        slots = pictures.slot_I[:, None] + torch.arange(features.shape[1], device=features.device)
        rows = pictures.row_I[:, None].expand_as(slots)
        seen = pictures.visible_IM
        return und_RTH.index_put((rows[seen], slots[seen]), features[seen].to(und_RTH.dtype))

    # ----------------------------------------------------------------- blocks

    def picture_block(self, patches: int) -> tuple[Tensor, int]:
        """Image start, the patches, image end."""
        ids_T = torch.full((patches + 2,), self.special.image_start, dtype=torch.long, device=self.device)
        ids_T[-1] = self.special.image_end
        return ids_T, 1

    def latent_block(self) -> Tensor:
        return self.picture_block(0)[0]

    def start_position(self, rows: int) -> Tensor:
        return torch.zeros(rows, dtype=torch.long, device=self.device)

    def text_places(self, start_R: Tensor, visible_RT: Tensor) -> Places:
        """One after another."""
        offset_RT = (visible_RT.cumsum(1) - 1).clamp_min(0)
        return Places(start_R[:, None] + offset_RT, start_R + visible_RT.sum(1))

    def picture_places(self, start_R: Tensor, sizes: Sequence[tuple[int, int]], tokens: int) -> Places:
        """A picture takes one position, which all its tokens share."""
        return Places(start_R[:, None].expand(-1, tokens), start_R + 1)

    def latent_places(self, start_R: Tensor, grid: tuple[int, int]) -> Places:
        """A picture takes one position, which all its tokens share."""
        latents_RL = start_R[:, None].expand(-1, grid[0] * grid[1])
        return Places(start_R[:, None].expand(-1, 2), start_R + 1, latents_RL)

    # ----------------------------------------------------------------- geometry and pixels

    @property
    def picture_transforms(self) -> tuple[ImageTransform, ImageTransform]:
        """Upstream resizes every picture by the first of them, also one that only the vision encoder sees."""
        vae, vit = (
            ImageTransform(max_size=longest, min_size=shortest, stride=stride)
            for longest, shortest, stride in (self.defaults.vae_sides, self.defaults.vit_sides)
        )
        return vae, vit

    @property
    def adapter_target(self) -> str:
        """Every projection of both experts (the paper's choice)."""
        return EXPERTS

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        return self.config.num_layers, self.config.num_kv_heads, self.config.head_size

    @property
    def sizes(self) -> Sizes:
        c = self.config
        return Sizes(
            layers=c.num_layers,
            hidden=c.hidden_size,
            inner=c.intermediate_size,
            query=c.num_heads * c.head_size,
            key=c.num_kv_heads * c.head_size,
            heads=c.num_heads,
            vocabulary=c.vocab_size,
            latent=c.latent_size,
            autoencoder=sum(p.numel() * p.element_size() for p in self.autoencoder.parameters()),
        )

    @property
    def latent_size(self) -> int:
        return self.config.latent_size

    def latent_grid(self, height: int, width: int) -> tuple[int, int]:
        unit, side = self.config.pixels_per_latent, self.config.max_latent_size
        if height % unit or width % unit:
            raise ValueError(f"pictures of {height}x{width} pixels: both sides must be multiples of {unit}")
        if max(height, width) > unit * side:
            raise ValueError(
                f"pictures of {height}x{width} pixels: the position table ends at {unit * side} "
                f"(latent_pos_embed.pos_embed holds {side} x {side} latent tokens): ask for smaller ones"
            )
        return height // unit, width // unit

    def latent_index(self, grid: tuple[int, int]) -> Tensor:
        return _table_index(grid, self.config.max_latent_size)

    @torch.no_grad()
    def encode_image(self, pixels_NCHW: Tensor) -> Tensor:
        with autocast_off(self.device):
            latents = self.autoencoder.encode(widened(pixels_NCHW.to(self.device)))
        return patchify(latents, self.config.latent_patch_size).float()

    @torch.no_grad()
    def decode_latents(self, latents_NLD: Tensor, grid: tuple[int, int]) -> Tensor:
        patch = self.config.latent_patch_size
        latents = unpatchify(latents_NLD, grid[0] * patch, grid[1] * patch, patch, self.config.z_channels)
        with autocast_off(self.device):
            return self.autoencoder.decode(widened(latents))

    def picture_patches(self, pixels_CHW: Tensor) -> tuple[Tensor, Tensor]:
        patch, side = self.config.vision.patch_size, self.config.vit_max_num_patch_per_side
        height, width = pixels_CHW.shape[-2:]
        if height % patch or width % patch or max(height, width) > patch * side:
            raise ValueError(
                f"the vision encoder reads sides of n * {patch} <= {patch * side} pixels, not {height}x{width} "
                f"(vit_pos_embed.pos_embed holds {side} x {side} patches): resize the picture"
            )
        index = _table_index((height // patch, width // patch), side).to(pixels_CHW.device)
        return patchify(pixels_CHW, patch), index


def _table_index(grid: tuple[int, int], side: int) -> Tensor:
    rows, columns = (torch.arange(n) for n in grid)
    return (rows[:, None] * side + columns).flatten()


def _special_tokens(tokenizer: Any, words: int) -> BagelTokens:
    names = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    ids = [tokenizer.convert_tokens_to_ids(name) for name in names]
    missing = [name for name, i in zip(names, ids, strict=True) if i is None or i == tokenizer.unk_token_id]
    if missing:
        raise ValueError(f"the tokenizer does not know {', '.join(missing)}: use the tokenizer files of the checkpoint")
    if max(ids) >= words:
        raise ValueError(
            f"the tokenizer's ids of {', '.join(names)} are {ids}, but language_model.model.embed_tokens.weight has "
            f"{words} rows (vocab_size): use the tokenizer files of the checkpoint"
        )
    return BagelTokens(text_start=ids[0], text_end=ids[1], image_start=ids[2], image_end=ids[3])
