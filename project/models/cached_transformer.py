"""Transformers with a cache: contexts of keys and values that grow, and two heads that read them.

`forward(query, contexts)` is the only method that touches parameters. Everything else here composes it, so
strategies, checkpointing and compilation see ordinary forwards. Delimiters and positions are the backbone's own
affair: the methods under "blocks" say which tokens a block is made of and where they stand. Shape suffixes:
project/trajectory.py; here `A` is an axis of positions, where a backbone has several.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from project.models.alike import Alike, AlikeStates
from project.models.base import UnifiedModel
from project.models.context import Context, Contexts, FunctionalContext, StaticContext
from project.models.query import Output, Pictures, Query, merge, pad
from project.models.text import SampledText, TextLogProbs, tempered
from project.models.writing import write
from project.samplers.guidance import Guidance, guide

TOKENS_PER_QUESTION = 8
"""Tokens that a GPU writes before the host waits to know whether all texts have ended."""


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Delimiters of texts, resolved by their strings."""

    text_start: int
    text_end: int


class Places(NamedTuple):
    """Where the tokens of a block stand, and where the next block begins: [R, T] and [R], or with axes [R, T, A]."""

    tokens_RT: Tensor
    next_R: Tensor
    latents_RL: Tensor | None = None


class _Branch(NamedTuple):
    """States [R, K, L, D] and their flow times, read in one context; `same` rows have equal first states."""

    context: Context
    x_RKLD: Tensor
    sigma_K: Tensor
    same: Alike | None = None

    def parts(self, room: int) -> list[_Branch]:
        """What has to be computed: each different first state once, and all others."""
        if self.same is None:
            return [self]
        first_M = self.same.first_M
        first = _Branch(self.context.select(first_M, room=room), self.x_RKLD[first_M, :1], self.sigma_K[:1])
        others = _Branch(self.context, self.x_RKLD[:, 1:], self.sigma_K[1:])
        return [first, others] if len(others.sigma_K) else [first]

    def whole(self, of_parts: Sequence[Tensor]) -> Tensor:
        """What was computed of the parts, for all states [R, K, L, D]."""
        if self.same is None:
            return of_parts[0]
        return torch.cat([of_parts[0].index_select(0, self.same.kind_R), *of_parts[1:]], dim=1)


class CachedTransformer(UnifiedModel):
    """A backbone whose contexts hold keys and values.

    A new backbone implements the abstract members and overrides what it does otherwise; `tests/test_contracts.py`
    exercises every one it finds.
    """

    special: SpecialTokens

    # ----------------------------------------------------------------- what a backbone supplies

    @abstractmethod
    def forward(self, query: Query, contexts: Sequence[Context] = ()) -> Output:
        """Feed a query that reads `contexts` (none: it only reads itself). The only user of parameters."""

    @property
    @abstractmethod
    def cache_shape(self) -> tuple[int, int, int]:
        """(layers, key heads, head size) of a context."""

    @abstractmethod
    def latent_index(self, grid: tuple[int, int]) -> Tensor:
        """Place of each latent token of a grid in the position table, int64 [L]."""

    @abstractmethod
    def picture_patches(self, pixels_CHW: Tensor) -> tuple[Tensor, Tensor]:
        """Patches [M, D] of one picture for the vision encoder, and their places in its position table [M]."""

    # ----------------------------------------------------------------- blocks: which tokens, and where they stand

    def text_block(self, ids_T: Tensor) -> Tensor:
        """Token ids of a whole text, with its delimiters."""
        start, end = (ids_T.new_tensor([token]) for token in (self.special.text_start, self.special.text_end))
        return torch.cat([start, ids_T, end])

    @abstractmethod
    def picture_block(self, patches: int) -> tuple[Tensor, int]:
        """Token ids of a picture with a place (any id) for each patch, and the slot of the first patch."""

    @abstractmethod
    def latent_block(self) -> Tensor:
        """Token ids that go with the latents of a picture, int64 [T]; perhaps none."""

    @abstractmethod
    def start_position(self, rows: int) -> Tensor:
        """Where the first block of a context stands, int64 [R] or [R, A]."""

    @abstractmethod
    def text_places(self, start_R: Tensor, visible_RT: Tensor) -> Places:
        """Of the tokens of a text, or of any part of one that begins at `start_R`; hidden ones do not count."""

    @abstractmethod
    def picture_places(self, start_R: Tensor, sizes: Sequence[tuple[int, int]], tokens: int) -> Places:
        """Of the tokens of a picture that the vision encoder reads; `sizes`: height, width of each row's [pixels]."""

    @abstractmethod
    def latent_places(self, start_R: Tensor, grid: tuple[int, int]) -> Places:
        """Of the tokens of `latent_block` and of the latents; a noised picture leaves `start_R` as it is."""

    # ----------------------------------------------------------------- contexts

    def static_context(self, rows: int, capacity: int) -> StaticContext:
        """An empty context with preallocated buffers, for use without gradients."""
        layers, heads, head_size = self.cache_shape
        return StaticContext(
            layers=layers,
            heads=heads,
            head_size=head_size,
            capacity=capacity,
            dtype=self.dtype,
            position_R=self.start_position(rows),
        )

    def functional_context(self, rows: int) -> FunctionalContext:
        """An empty context that gradients flow through."""
        layers, heads, head_size = self.cache_shape
        return FunctionalContext.empty(
            layers=layers, heads=heads, head_size=head_size, dtype=self.dtype, position_R=self.start_position(rows)
        )

    def text_room(self, tokens: int) -> int:
        return len(self.text_block(torch.zeros(tokens, dtype=torch.long)))

    def picture_room(self, height: int, width: int) -> int:
        patches, _ = self.picture_patches(torch.zeros(3, height, width))
        return len(self.picture_block(len(patches))[0])

    def latent_room(self, grid: tuple[int, int]) -> int:
        return len(self.latent_block()) + grid[0] * grid[1]

    def append_tokens(self, context: Context, ids_RT: Tensor, visible_RT: Tensor | None = None) -> Context:
        """Read raw tokens of a text, causally, without delimiters; hidden ones are padding and do not count."""
        visible = torch.ones_like(ids_RT, dtype=torch.bool) if visible_RT is None else visible_RT
        return self._read_tokens(context, ids_RT, visible)[0]

    def append_text(self, context: Context, ids: Sequence[Tensor]) -> Context:
        """Read one text per row as a block, with its delimiters."""
        ids_RT, visible_RT = pad([self.text_block(row) for row in ids])
        return self.append_tokens(context, ids_RT.to(self.device), visible_RT.to(self.device))

    def append_picture(self, context: Context, pixels: Sequence[Tensor]) -> Context:
        """Read one picture per row as one block, whose tokens all see each other. Raises as `picture_patches` does."""
        parts = [self.picture_patches(p.to(self.device)) for p in pixels]
        patches_IMD, visible_IM = pad([patches for patches, _ in parts])
        index_IM, _ = pad([index for _, index in parts])
        blocks = [self.picture_block(len(patches)) for patches, _ in parts]
        ids_RT, visible_RT = pad([ids for ids, _ in blocks])
        places = self.picture_places(context.position_R, [(p.shape[-2], p.shape[-1]) for p in pixels], ids_RT.shape[1])
        query = Query(
            ids_RT=ids_RT.to(self.device),
            position_RT=places.tokens_RT,
            pictures=Pictures(
                patches_IMD=patches_IMD,
                index_IM=index_IM,
                visible_IM=visible_IM,
                row_I=torch.arange(len(pixels), device=self.device),
                slot_I=torch.tensor([slot for _, slot in blocks], device=self.device),
            ),
            visible_RT=visible_RT.to(self.device),
            mask="full",
        )
        return context.grown(self(query, [context]).keys_values, visible_RT.to(self.device), places.next_R)

    def append_latents(self, context: Context, latents_RLD: Tensor, grid: tuple[int, int]) -> Context:
        """Read one clean picture per row as latents at flow time 0, as one block whose tokens all see each other."""
        sigma = torch.zeros(latents_RLD.shape[0], device=self.device)
        query, next_R = self._latent_query(context, latents_RLD, sigma, grid)
        visible = torch.ones(len(latents_RLD), self.latent_room(grid), dtype=torch.bool, device=self.device)
        return context.grown(self(query, [context]).keys_values, visible, next_R)

    # ----------------------------------------------------------------- the two heads

    def velocity(
        self,
        latents_RKLD: Tensor,
        sigma_K: Tensor,
        contexts: Contexts,
        guidance: Guidance,
        grid: tuple[int, int],
        *,
        alike: AlikeStates | None = None,
    ) -> Tensor:
        """As of the unified model; all branches of guidance go through one forward."""
        steps = latents_RKLD.shape[1]
        guided = [k for k, sigma in enumerate(sigma_K.tolist()) if guidance.active(sigma)]
        same = alike or AlikeStates(main=None, free=None)
        branches = [_Branch(contexts.main, latents_RKLD, sigma_K.to(self.device), same.main)]
        if guided:
            free = [contexts.text_free]
            if guidance.image > 1:
                if contexts.image_free is None:
                    raise ValueError("image guidance is on (guidance.image > 1) but there is no image-free context")
                free.append(contexts.image_free)
            same_free = None if guided[0] else same.free
            x_RKLD, of_guided = latents_RKLD[:, guided], branches[0].sigma_K[guided]
            branches += [_Branch(context, x_RKLD, of_guided, same_free) for context in free]
        velocities = self._velocities(branches, grid)
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

    def _velocities(self, branches: Sequence[_Branch], grid: tuple[int, int]) -> list[Tensor]:
        """The velocities [R, K, L, D] (fp32) of each branch, without guidance, by one forward."""
        room = self.latent_room(grid)
        parts = [branch.parts(room) for branch in branches]
        queries = [
            self._latent_query(part.context, part.x_RKLD.flatten(0, 1), part.sigma_K.repeat(len(part.x_RKLD)), grid)[0]
            for some in parts
            for part in some
        ]
        merged = merge(queries)
        output = self(merged, [part.context for some in parts for part in some]).velocity_RLD
        assert output is not None
        computed = iter(output.float().split(list(merged.rows or ())))
        return [
            branch.whole([next(computed).unflatten(0, part.x_RKLD.shape[:2]) for part in some])
            for branch, some in zip(branches, parts, strict=True)
        ]

    @torch.no_grad()
    def sample_text(
        self, context: Context, uniform_RT: Tensor, *, temperature: float = 1.0, top_p: float = 1.0
    ) -> tuple[Context, SampledText]:
        context, drawn, writing_R = write(
            self._read_token,
            context,
            uniform_RT.to(self.device),
            start=self.special.text_start,
            end=self.special.text_end,
            temperature=temperature,
            top_p=top_p,
            together=self._tokens_per_question,
        )
        if writing_R.any():
            # Rows cut off by the limit: their last token was drawn but not yet read.
            context = self.append_tokens(context, drawn[-1].token_R[:, None], writing_R[:, None])
        rows = len(writing_R)
        end = torch.full((rows, 1), self.special.text_end, dtype=torch.long, device=self.device)
        context = self.append_tokens(context, end)
        ids_RT, log_prob_RT, entropy_RT, mask_RT = (torch.stack(column, 1) for column in zip(*drawn, strict=True))
        return context, SampledText(
            ids_RT=ids_RT.where(mask_RT, end),
            log_prob_RT=log_prob_RT.where(mask_RT, 0.0),
            entropy_RT=entropy_RT.where(mask_RT, 0.0),
            length_R=mask_RT.sum(1),
            finished_R=~writing_R,
        )

    @property
    def _tokens_per_question(self) -> int:
        """So many tokens are written before the device is asked whether texts have ended; asking a CPU is free."""
        return 1 if self.device.type == "cpu" else TOKENS_PER_QUESTION

    def first_token_log_probs(self, context: Context) -> Tensor:
        start_R1 = torch.full((context.rows, 1), self.special.text_start, dtype=torch.long, device=self.device)
        query, _ = self._token_query(context, start_R1, torch.ones_like(start_R1, dtype=torch.bool), logits="last")
        logits_RV = self(query, [context]).logits
        assert logits_RV is not None
        return torch.log_softmax(logits_RV.float(), dim=-1)

    def text_log_probs(
        self, context: Context, ids: Sequence[Tensor], *, temperature: float = 1.0
    ) -> tuple[Context, TextLogProbs]:
        end = self.special.text_end
        # Made where the ids are, mostly beside the CPU, and moved together: a GPU would be waited for at each text.
        fed = [self.text_block(row[:-1] if len(row) and row[-1] == end else row) for row in ids]
        fed_RT, visible_RT = (x.to(self.device) for x in pad(fed))
        target_RT, mask_RT = (x.to(self.device) for x in pad(ids))
        marked_RT = torch.zeros_like(visible_RT)
        marked_RT[:, : mask_RT.shape[1]] = mask_RT
        context, logits = self._read_tokens(context, fed_RT, visible_RT, logits=marked_RT)
        assert logits is not None
        log_prob_WV = torch.log_softmax(tempered(logits, temperature), dim=-1)
        chosen_W = log_prob_WV.gather(1, target_RT[mask_RT][:, None])[:, 0]
        entropy_W = -(log_prob_WV.exp() * log_prob_WV).sum(-1)
        zeros = torch.zeros(mask_RT.shape, device=self.device)
        return context, TextLogProbs(
            log_prob_RT=zeros.masked_scatter(mask_RT, chosen_W),
            entropy_RT=zeros.masked_scatter(mask_RT, entropy_W),
            mask_RT=mask_RT,
        )

    # ----------------------------------------------------------------- queries

    def _read_tokens(
        self, context: Context, ids_RT: Tensor, visible_RT: Tensor, logits: Literal["last"] | Tensor | None = None
    ) -> tuple[Context, Tensor | None]:
        """The context with tokens read, and the logits that were asked for."""
        query, next_R = self._token_query(context, ids_RT, visible_RT, logits)
        output = self(query, [context])
        return context.grown(output.keys_values, visible_RT, next_R), output.logits

    def _read_token(self, context: Context, token_R: Tensor, visible_R: Tensor) -> tuple[Context, Tensor]:
        """The context with one token a row read, and the logits of the next."""
        context, logits_RV = self._read_tokens(context, token_R[:, None], visible_R[:, None], logits="last")
        assert logits_RV is not None
        return context, logits_RV

    def _token_query(
        self, context: Context, ids_RT: Tensor, visible_RT: Tensor, logits: Literal["last"] | Tensor | None = None
    ) -> tuple[Query, Tensor]:
        """A query of tokens of a text, and where the next block stands."""
        places = self.text_places(context.position_R, visible_RT)
        query = Query(ids_RT=ids_RT, position_RT=places.tokens_RT, visible_RT=visible_RT, mask="causal", logits=logits)
        return query, places.next_R

    def _latent_query(
        self, context: Context, latents_RLD: Tensor, sigma_R: Tensor, grid: tuple[int, int]
    ) -> tuple[Query, Tensor]:
        """A query of latents that see each other and the whole context, and where the block after them stands."""
        rows, length = latents_RLD.shape[:2]
        ids_T = self.latent_block().to(self.device)
        places = self.latent_places(context.position_R.repeat_interleave(rows // context.rows, dim=0), grid)
        query = Query(
            ids_RT=ids_T.expand(rows, -1),
            position_RT=places.tokens_RT,
            latents_RLD=latents_RLD,
            sigma_RL=sigma_R[:, None],
            latent_index_RL=self.latent_index(grid).to(self.device).expand(rows, length),
            latent_position_RL=places.latents_RL,
            mask="full",
        )
        return query, places.next_R
