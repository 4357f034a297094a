"""The abstraction that carries every backbone: contexts that grow, and two heads that read them.

`forward(query, contexts)` is the only method that touches parameters. Everything else here composes it, so
strategies, checkpointing and compilation see ordinary forwards. Shape suffixes: project/trajectory.py; here
`C` is the size of an attention head and `W` the words whose logits were asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from project.models.context import Context, Contexts, FunctionalContext, StaticContext
from project.models.query import Output, Pictures, Query, merge, pad
from project.models.sizes import Sizes
from project.models.text import SampledText, TextLogProbs, draw_token, plain_ids, tempered
from project.samplers.guidance import Guidance, guide


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Delimiters, resolved by their strings."""

    text_start: int
    text_end: int
    image_start: int
    image_end: int


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """How a checkpoint is meant to be used when nothing else is said; kept in its `generation_config.json`.

    Attributes:
        think_prompt: system prompt that announces reasoning before drawing.
        ask_think_prompt: system prompt that announces reasoning before an answer.
        reflect_prompt: what is said beside a picture that is to be looked at and redrawn; holds "{prompt}".
        height, width: of pictures, in pixels.
        num_steps, shift: of the ODE schedule (num_steps - 1 evaluations).
        guidance, guidance_interval: text guidance.
        max_tokens, top_p: of the reasoning.
        vae_sides, vit_sides: longest and shortest side [pixels] of pictures that the autoencoder and the vision
            encoder read, and what both sides are multiples of.
    """

    think_prompt: str = ""
    ask_think_prompt: str = ""
    reflect_prompt: str = (
        "This picture was drawn for the request: {prompt}\nSay first what the request asks for, then compare the "
        "picture with it point by point, then say what has to change, or that nothing is wrong. Then draw the "
        "picture again, corrected."
    )
    height: int = 1024
    width: int = 1024
    num_steps: int = 50
    shift: float = 3.0
    guidance: float = 4.0
    guidance_interval: tuple[float, float] = (0.4, 1.0)
    max_tokens: int = 1024
    top_p: float = 0.3
    vae_sides: tuple[int, int, int] = (1024, 512, 16)
    vit_sides: tuple[int, int, int] = (980, 224, 14)


class ModelSource(ABC):
    """Where a model comes from: a light value named in YAML; weights are read when training is set up."""

    @abstractmethod
    def load(self) -> UnifiedModel:
        """Make the model. Raises FileNotFoundError or ValueError naming what is wrong with the files."""

    def outline(self) -> UnifiedModel:
        """The model on the meta device, without reading weights. Raises ValueError for a source that has none."""
        raise ValueError(f"{type(self).__name__} cannot outline its model, so there is no plan of its memory")

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether a checkpoint folder (perhaps without its weights) is one that `cls(directory)` reads."""
        return False


class UnifiedModel(nn.Module, ABC):
    """A backbone that reads text and pictures and writes text and latents.

    A new backbone implements the abstract members; `tests/test_contracts.py` exercises every one it finds.
    """

    tokenizer: Any
    special: SpecialTokens
    defaults: Defaults
    name_or_path: str | None = None
    """Hub id or folder that the weights came from, if any (an adapter's files name it as their base)."""

    # ----------------------------------------------------------------- what a backbone supplies

    @classmethod
    @abstractmethod
    def from_pretrained(cls, directory: str) -> UnifiedModel:
        """Load a checkpoint folder (or hub id). Raises FileNotFoundError, or ValueError naming file and tensor."""

    @abstractmethod
    def save_pretrained(
        self, directory: str | Path, dtype: torch.dtype | None = None, max_shard_size: int | None = None
    ) -> None:
        """Write a checkpoint folder that `from_pretrained` reads.

        Args:
            dtype: of the weights in the files; their own if None.
            max_shard_size: bytes in a weight file, for backbones that can write several; no limit if None.
        """

    @abstractmethod
    def forward(self, query: Query, contexts: Sequence[Context] = ()) -> Output:
        """Feed a query that reads `contexts` (none: it only reads itself). The only user of parameters."""

    @property
    @abstractmethod
    def cache_shape(self) -> tuple[int, int, int]:
        """(layers, key heads, head size) of a context."""

    @property
    def sizes(self) -> Sizes:
        """The widths that time and memory are planned with. Raises ValueError for a backbone that tells none."""
        raise ValueError(f"{type(self).__name__} tells no sizes, so there is no plan of its memory")

    @property
    @abstractmethod
    def latent_size(self) -> int:
        """D, values of a latent token."""

    @abstractmethod
    def latent_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of latent tokens of a picture of that many pixels. Raises ValueError if impossible."""

    @abstractmethod
    def latent_index(self, grid: tuple[int, int]) -> Tensor:
        """Place of each latent token of a grid in the position table, int64 [L]."""

    @abstractmethod
    def encode_image(self, pixels_NCHW: Tensor) -> Tensor:
        """Clean latent tokens [N, L, D] of pictures in [-1, 1]."""

    @abstractmethod
    def decode_latents(self, latents_NLD: Tensor, grid: tuple[int, int]) -> Tensor:
        """Pictures [N, 3, height, width] in about [-1, 1]."""

    @abstractmethod
    def picture_patches(self, pixels_CHW: Tensor) -> tuple[Tensor, Tensor]:
        """Patches [M, D] of one picture for the vision encoder, and their places in its position table [M]."""

    # ----------------------------------------------------------------- contexts

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def static_context(self, rows: int, capacity: int) -> StaticContext:
        """An empty context with preallocated buffers, for use without gradients."""
        layers, heads, head_size = self.cache_shape
        return StaticContext(
            layers=layers,
            rows=rows,
            heads=heads,
            head_size=head_size,
            capacity=capacity,
            dtype=self.dtype,
            device=self.device,
        )

    def functional_context(self, rows: int) -> FunctionalContext:
        """An empty context that gradients flow through."""
        layers, heads, head_size = self.cache_shape
        return FunctionalContext.empty(
            layers=layers, rows=rows, heads=heads, head_size=head_size, dtype=self.dtype, device=self.device
        )

    def encode_text(self, text: str, *, control: bool = False) -> Tensor:
        """Token ids of a text, without delimiters, int64 [T] on the model's device.

        What reads like a control token (`<|im_end|>`) is text, whoever wrote it; with `control` it is obeyed.
        """
        ids = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"] if control else plain_ids(self.tokenizer, text)
        )
        return torch.tensor(ids, dtype=torch.long, device=self.device)

    def decode_text(self, ids_T: Tensor) -> str:
        """The text of token ids, special tokens left out."""
        return self.tokenizer.decode(ids_T.tolist(), skip_special_tokens=True).strip()

    def append_tokens(self, context: Context, ids_RT: Tensor, visible_RT: Tensor | None = None) -> Context:
        """Read raw tokens, causally, without delimiters; hidden ones are padding and do not count."""
        visible = torch.ones_like(ids_RT, dtype=torch.bool) if visible_RT is None else visible_RT
        output = self(self._token_query(context, ids_RT, visible), [context])
        return context.grown(output.keys_values, visible, context.position_R + visible.sum(1))

    def append_text(self, context: Context, ids: Sequence[Tensor]) -> Context:
        """Read one text per row as a block: start token, ids, end token."""
        start, end = self.special.text_start, self.special.text_end
        ids_RT, visible_RT = pad([torch.cat([i.new_tensor([start]), i, i.new_tensor([end])]) for i in ids])
        return self.append_tokens(context, ids_RT.to(self.device), visible_RT.to(self.device))

    def append_picture(self, context: Context, pixels: Sequence[Tensor]) -> Context:
        """Read one picture [3, height, width] in [-1, 1] per row through the vision encoder, as one block.

        All its tokens see each other and share one position.
        """
        parts = [self.picture_patches(p.to(self.device)) for p in pixels]
        patches_IMD, visible_IM = pad([patches for patches, _ in parts])
        index_IM, _ = pad([index for _, index in parts])
        ids_RT, visible_RT = pad([self._image_block(len(patches)) for patches, _ in parts])
        rows = torch.arange(len(pixels), device=self.device)
        query = Query(
            ids_RT=ids_RT,
            position_RT=context.position_R[:, None].expand_as(ids_RT),
            pictures=Pictures(
                patches_IMD=patches_IMD,
                index_IM=index_IM,
                visible_IM=visible_IM,
                row_I=rows,
                slot_I=torch.ones_like(rows),
            ),
            visible_RT=visible_RT,
            mask="full",
        )
        return context.grown(self(query, [context]).keys_values, visible_RT, context.position_R + 1)

    def append_latents(self, context: Context, latents_RLD: Tensor, grid: tuple[int, int]) -> Context:
        """Read one clean picture per row as latents at flow time 0, as one block that shares one position."""
        sigma = torch.zeros(latents_RLD.shape[0], device=self.device)
        query = self._latent_query(context, latents_RLD, sigma, grid)
        visible = torch.ones(query.ids_RT.shape[0], latents_RLD.shape[1] + 2, dtype=torch.bool, device=self.device)
        return context.grown(self(query, [context]).keys_values, visible, context.position_R + 1)

    # ----------------------------------------------------------------- the two heads

    def velocity(
        self, latents_RKLD: Tensor, sigma_K: Tensor, contexts: Contexts, guidance: Guidance, grid: tuple[int, int]
    ) -> Tensor:
        """Guided velocity [R, K, L, D] (fp32) of K noised states per context row, all branches in one forward.

        Args:
            sigma_K: flow times, shared by the rows; guidance acts on those inside its interval.
        """
        rows, steps = latents_RKLD.shape[:2]
        guided = [k for k, sigma in enumerate(sigma_K.tolist()) if guidance.active(sigma)]
        branches = [contexts.main]
        states = [latents_RKLD]
        sigmas = [sigma_K.to(self.device)]
        if guided:
            branches.append(contexts.text_free)
            if guidance.image > 1:
                if contexts.image_free is None:
                    raise ValueError("image guidance is on (guidance.image > 1) but there is no image-free context")
                branches.append(contexts.image_free)
            for _ in branches[1:]:
                states.append(latents_RKLD[:, guided])
                sigmas.append(sigmas[0][guided])
        queries = [
            self._latent_query(branch, x.flatten(0, 1), sigma.repeat(rows), grid)
            for branch, x, sigma in zip(branches, states, sigmas, strict=True)
        ]
        merged = merge(queries)
        output = self(merged, branches).velocity_RLD
        assert output is not None
        velocities = [
            v.float().unflatten(0, x.shape[:2])
            for v, x in zip(output.split(list(merged.rows or ())), states, strict=True)
        ]
        if not guided:
            return velocities[0]
        main = velocities[0][:, guided]
        image_free = velocities[2].flatten(0, 1) if len(velocities) > 2 else None
        better = guide(main.flatten(0, 1), velocities[1].flatten(0, 1), image_free, guidance).unflatten(
            0, main.shape[:2]
        )
        if len(guided) == steps:
            return better
        places = torch.tensor(guided, device=better.device)
        return velocities[0].index_copy(1, places, better)

    @torch.no_grad()
    def sample_text(
        self, context: Context, uniform_RT: Tensor, *, temperature: float = 1.0, top_p: float = 1.0
    ) -> tuple[Context, SampledText]:
        """Write at most T tokens per row by inverse CDF of given uniform numbers, then close the block.

        Args:
            context: needs room for T + 2 tokens.
            uniform_RT: numbers in [0, 1), one per token that may be drawn.
            temperature: 0 = greedy. Log-probabilities are of the full softmax after temperature.
            top_p: share of the probability that tokens are drawn from.
        """
        rows, limit = uniform_RT.shape
        token = torch.full((rows,), self.special.text_start, dtype=torch.long, device=self.device)
        writing = torch.ones(rows, dtype=torch.bool, device=self.device)
        ids, log_probs, entropies, masks = [], [], [], []
        for t in range(limit):
            query = self._token_query(context, token[:, None], writing[:, None], logits="last")
            output = self(query, [context])
            context = context.grown(output.keys_values, writing[:, None], context.position_R + writing)
            assert output.logits is not None
            log_prob_RV = torch.log_softmax(tempered(output.logits, temperature), dim=-1)
            token = draw_token(log_prob_RV, uniform_RT[:, t].to(self.device), greedy=temperature == 0, top_p=top_p)
            ids.append(token)
            log_probs.append(log_prob_RV.gather(1, token[:, None])[:, 0])
            entropies.append(-(log_prob_RV.exp() * log_prob_RV).sum(-1))
            masks.append(writing)
            writing = writing & (token != self.special.text_end)
            if not writing.any():
                break
        if writing.any():
            # Rows cut off by the limit: their last token was drawn but not yet read.
            query = self._token_query(context, token[:, None], writing[:, None])
            context = context.grown(self(query, [context]).keys_values, writing[:, None], context.position_R + writing)
        end = torch.full((rows, 1), self.special.text_end, dtype=torch.long, device=self.device)
        context = self.append_tokens(context, end)
        mask_RT = torch.stack(masks, 1)
        return context, SampledText(
            ids_RT=torch.stack(ids, 1).where(mask_RT, end),
            log_prob_RT=torch.stack(log_probs, 1).where(mask_RT, 0.0),
            entropy_RT=torch.stack(entropies, 1).where(mask_RT, 0.0),
            length_R=mask_RT.sum(1),
            finished_R=~writing,
        )

    def first_token_log_probs(self, context: Context) -> Tensor:
        """Log-probabilities [R, V] (fp32) of the first token of a text; a static context needs room for one token."""
        start_R1 = torch.full((context.rows, 1), self.special.text_start, dtype=torch.long, device=self.device)
        query = self._token_query(context, start_R1, torch.ones_like(start_R1, dtype=torch.bool), logits="last")
        logits_RV = self(query, [context]).logits
        assert logits_RV is not None
        return torch.log_softmax(logits_RV.float(), dim=-1)

    def text_log_probs(
        self, context: Context, ids: Sequence[Tensor], *, temperature: float = 1.0
    ) -> tuple[Context, TextLogProbs]:
        """Log-probabilities of texts as `sample_text` would have written them, and the context with them read.

        Args:
            ids: per row the sampled tokens (with the end token where it was sampled; a missing one is read too but
                gets no log-probability).
        """
        start, end = self.special.text_start, self.special.text_end
        fed = []
        for row in ids:
            row = row.to(self.device)
            closed = row if len(row) and row[-1] == end else torch.cat([row, row.new_tensor([end])])
            fed.append(torch.cat([row.new_tensor([start]), closed]))
        fed_RT, visible_RT = pad(fed)
        target_RT, mask_RT = pad([row.to(self.device) for row in ids])
        marked_RT = torch.zeros_like(visible_RT)
        marked_RT[:, : mask_RT.shape[1]] = mask_RT
        output = self(self._token_query(context, fed_RT, visible_RT, logits=marked_RT), [context])
        context = context.grown(output.keys_values, visible_RT, context.position_R + visible_RT.sum(1))
        assert output.logits is not None
        log_prob_WV = torch.log_softmax(tempered(output.logits, temperature), dim=-1)
        chosen_W = log_prob_WV.gather(1, target_RT[mask_RT][:, None])[:, 0]
        entropy_W = -(log_prob_WV.exp() * log_prob_WV).sum(-1)
        zeros = torch.zeros(mask_RT.shape, device=self.device)
        return context, TextLogProbs(
            log_prob_RT=zeros.masked_scatter(mask_RT, chosen_W),
            entropy_RT=zeros.masked_scatter(mask_RT, entropy_W),
            mask_RT=mask_RT,
        )

    # ----------------------------------------------------------------- queries

    def _token_query(
        self, context: Context, ids_RT: Tensor, visible_RT: Tensor, logits: Literal["last"] | Tensor | None = None
    ) -> Query:
        offset_RT = (visible_RT.cumsum(1) - 1).clamp_min(0)
        return Query(
            ids_RT=ids_RT,
            position_RT=context.position_R[:, None] + offset_RT,
            visible_RT=visible_RT,
            mask="causal",
            logits=logits,
        )

    def _latent_query(self, context: Context, latents_RLD: Tensor, sigma_R: Tensor, grid: tuple[int, int]) -> Query:
        """Image start, latents, image end: at one position, seeing each other and the whole context."""
        rows, length = latents_RLD.shape[:2]
        position_R = context.position_R.repeat_interleave(rows // context.rows)
        ids_RT = self._image_block(0).expand(rows, 2)
        return Query(
            ids_RT=ids_RT,
            position_RT=position_R[:, None].expand(rows, 2),
            latents_RLD=latents_RLD,
            sigma_RL=sigma_R[:, None].expand(rows, length),
            latent_index_RL=self.latent_index(grid).to(self.device).expand(rows, length),
            latent_position_RL=position_R[:, None].expand(rows, length),
            mask="full",
        )

    def _image_block(self, length: int) -> Tensor:
        """Image start, `length` places for patches, image end."""
        ids = torch.full((length + 2,), self.special.image_start, dtype=torch.long, device=self.device)
        ids[-1] = self.special.image_end
        return ids
