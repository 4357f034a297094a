"""Whole examples (texts and pictures with losses) as one query: a row per example, read without any context.

Blocks see the blocks before them; a noised picture is seen by no later block and does not advance positions, so
several noised copies of a picture may follow one another and share everything before them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from project.models.base import UnifiedModel
from project.models.cached_transformer import CachedTransformer, Places
from project.models.query import Pictures, Query, pad


@dataclass(frozen=True, kw_only=True)
class TextBlock:
    """Start token, ids, end token; with `loss`, the ids and the end token are predicted."""

    ids_T: Tensor
    loss: bool = False


@dataclass(frozen=True, kw_only=True)
class PictureBlock:
    """A picture [3, height, width] in [-1, 1], read by the vision encoder."""

    pixels_CHW: Tensor


@dataclass(frozen=True, kw_only=True)
class LatentBlock:
    """Latents [L, D] of a picture: clean if `noise_LD` is None, else noised to `sigma`, with a loss on the velocity."""

    latents_LD: Tensor
    grid: tuple[int, int]
    sigma: float = 0.0
    noise_LD: Tensor | None = None


@dataclass(frozen=True)
class DroppedPicture:
    """A picture left out: what follows stands where it would have stood."""

    block: PictureBlock | LatentBlock


Block = TextBlock | PictureBlock | LatentBlock | DroppedPicture


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A query and what its outputs should be.

    Attributes:
        target_W: the next tokens at the query's marked places, in row order.
        weight_W: how much each of them counts.
        velocity_RLD, noised_RL: wanted velocities (noise - latents), and where they count.
    """

    query: Query
    target_W: Tensor
    weight_W: Tensor
    velocity_RLD: Tensor | None
    noised_RL: Tensor | None


@dataclass(frozen=True, kw_only=True)
class PackedLoss:
    """(Weighted) mean cross entropy per predicted token [nats], mean squared velocity error per noised value."""

    cross_entropy: Tensor
    flow_matching: Tensor


class _Row:
    """Collects one example's tokens; lists are parallel, one entry a token (or a tensor with one for each)."""

    def __init__(self, model: CachedTransformer) -> None:
        self.model = model
        self.ids: list[int] = []
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.und: list[tuple[int, int, bool]] = []
        self.gen: list[tuple[int, int, bool]] = []
        self.latents: list[LatentBlock] = []
        self.pictures: list[tuple[int, Tensor, Tensor]] = []
        self.position_1 = model.start_position(1).cpu()
        nothing = self.position_1[:0]
        self.und_position: list[Tensor] = [nothing]
        self.gen_position: list[Tensor] = [nothing]
        self.block = 0

    def add(self, block: Block) -> None:
        if isinstance(block, TextBlock):
            ids = self.model.text_block(block.ids_T.cpu())
            targets = [*ids[1:].tolist(), -1] if block.loss else [-1] * len(ids)
            places = self.model.text_places(self.position_1, torch.ones(1, len(ids), dtype=torch.bool))
            self._und(ids, places, targets, causal=True)
            self.position_1 = places.next_R
        elif isinstance(block, PictureBlock):
            patches, index = self.model.picture_patches(block.pixels_CHW)
            ids, slot = self.model.picture_block(len(patches))
            places = self._places(block, len(ids))
            self.pictures.append((len(self.ids) + slot, patches, index))
            self._und(ids, places, [-1] * len(ids), causal=False)
            self.position_1 = places.next_R
        elif isinstance(block, DroppedPicture):
            self.position_1 = self._places(block.block, 0).next_R
        else:
            noised = block.noise_LD is not None
            ids, places = self.model.latent_block(), self._places(block, 0)
            assert places.latents_RL is not None
            self._und(ids, places, [-1] * len(ids), causal=False, hidden=noised)
            self.gen += [(self.block, 0, noised)] * len(block.latents_LD)
            self.gen_position.append(places.latents_RL[0])
            self.latents.append(block)
            if not noised:
                self.position_1 = places.next_R
        self.block += 1

    def _places(self, block: PictureBlock | LatentBlock, tokens: int) -> Places:
        if isinstance(block, LatentBlock):
            return self.model.latent_places(self.position_1, block.grid)
        height, width = block.pixels_CHW.shape[-2:]
        return self.model.picture_places(self.position_1, [(height, width)], tokens)

    def _und(self, ids: Tensor, places: Places, targets: list[int], *, causal: bool, hidden: bool = False) -> None:
        # Inside a block a token sees those of the same or a lower rank: 0 for all where everybody sees everybody.
        self.und += [(self.block, i if causal else 0, hidden) for i in range(len(ids))]
        self.und_position.append(places.tokens_RT[0])
        self.ids += ids.tolist()
        self.targets += targets
        predicted = sum(target >= 0 for target in targets)
        self.weights += [1 / math.sqrt(max(predicted, 1))] * len(ids)


def pack(model: UnifiedModel, examples: Sequence[Sequence[Block]], *, balance_texts: bool = False) -> Packed:
    """One query for all examples; see the module's text for who sees whom.

    With `balance_texts` each predicted token counts 1 / sqrt(tokens predicted of its text), so that a text counts
    by the root of its length. Raises ValueError for a model that is no `CachedTransformer`.
    """
    if not isinstance(model, CachedTransformer):
        raise ValueError(f"{type(model).__name__} reads no packed examples: only a CachedTransformer does")
    rows = [_Row(model) for _ in examples]
    for row, blocks in zip(rows, examples, strict=True):
        for block in blocks:
            row.add(block)
    device = model.device
    ids_RT, visible_RT = pad([torch.tensor(row.ids, device=device, dtype=torch.long) for row in rows])
    target_RT, _ = pad([torch.tensor(row.targets, device=device) for row in rows])
    weight_RT, _ = pad([torch.tensor(row.weights, device=device) for row in rows])
    und_RT3, _ = pad([torch.tensor(row.und, device=device, dtype=torch.long).view(-1, 3) for row in rows])
    gen_RL3, real_RL = pad([torch.tensor(row.gen, device=device, dtype=torch.long).view(-1, 3) for row in rows])
    position_RT, _ = pad([torch.cat(row.und_position) for row in rows])
    latent_position_RL, _ = pad([torch.cat(row.gen_position) for row in rows])
    marked_RT = (target_RT >= 0) & visible_RT
    has_latents = gen_RL3.shape[1] > 0
    latents = _latents(model, rows) if has_latents else {}
    return Packed(
        query=Query(
            ids_RT=ids_RT,
            position_RT=position_RT.to(device),
            pictures=_pictures(rows, device),
            visible_RT=visible_RT,
            mask=_mask(torch.cat([und_RT3, gen_RL3], 1), torch.cat([visible_RT, real_RL], 1)),
            logits=marked_RT,
            latent_position_RL=latent_position_RL.to(device) if has_latents else None,
            latents_RLD=latents.get("latents_RLD"),
            sigma_RL=latents.get("sigma_RL"),
            latent_index_RL=latents.get("latent_index_RL"),
        ),
        target_W=target_RT[marked_RT],
        weight_W=weight_RT[marked_RT] if balance_texts else torch.ones_like(weight_RT[marked_RT]),
        velocity_RLD=_wanted(model, rows) if has_latents else None,
        noised_RL=(gen_RL3[..., 2] == 1) & real_RL if has_latents else None,
    )


def packed_loss(model: UnifiedModel, packed: Packed) -> PackedLoss:
    """Both losses of a packed batch; 0 where nothing is to be predicted."""
    output = model(packed.query, [])
    zero = torch.zeros((), device=model.device)
    cross_entropy = zero
    if len(packed.target_W):
        assert output.logits is not None
        each_W = F.cross_entropy(output.logits.float(), packed.target_W, reduction="none")
        cross_entropy = (each_W * packed.weight_W).sum() / packed.weight_W.sum()
    flow_matching = zero
    if packed.noised_RL is not None and packed.noised_RL.any():
        assert output.velocity_RLD is not None and packed.velocity_RLD is not None
        difference = output.velocity_RLD.float() - packed.velocity_RLD
        flow_matching = difference[packed.noised_RL].square().mean()
    return PackedLoss(cross_entropy=cross_entropy, flow_matching=flow_matching)


def _mask(tokens_RN3: Tensor, real_RN: Tensor) -> Tensor:
    """bool [R, N, N]: query token, key token."""
    block, rank, hidden = tokens_RN3.unbind(-1)
    earlier = (block[:, None, :] < block[:, :, None]) & (hidden[:, None, :] == 0)
    together = (block[:, None, :] == block[:, :, None]) & (rank[:, None, :] <= rank[:, :, None])
    return (earlier | together) & real_RN[:, None, :]


def _pictures(rows: Sequence[_Row], device: torch.device) -> Pictures | None:
    found = [(r, *picture) for r, row in enumerate(rows) for picture in row.pictures]
    if not found:
        return None
    patches_IMD, visible_IM = pad([patches.to(device) for _, _, patches, _ in found])
    index_IM, _ = pad([index.to(device) for _, _, _, index in found])
    return Pictures(
        patches_IMD=patches_IMD,
        index_IM=index_IM,
        visible_IM=visible_IM,
        row_I=torch.tensor([r for r, _, _, _ in found], device=device),
        slot_I=torch.tensor([slot for _, slot, _, _ in found], device=device),
    )


def _latents(model: CachedTransformer, rows: Sequence[_Row]) -> dict[str, Tensor]:
    device = model.device
    states, sigmas, indices = [], [], []
    for row in rows:
        x = [torch.zeros(0, model.latent_size, device=device)]
        sigma, index = [torch.zeros(0)], [torch.zeros(0, dtype=torch.long)]
        for block in row.latents:
            clean = block.latents_LD.to(device)
            noise = block.noise_LD
            x.append(clean if noise is None else (1 - block.sigma) * clean + block.sigma * noise.to(device))
            sigma.append(torch.full((len(clean),), block.sigma))
            index.append(model.latent_index(block.grid))
        states.append(torch.cat(x))
        sigmas.append(torch.cat(sigma))
        indices.append(torch.cat(index))
    parts = {"latents_RLD": states, "sigma_RL": sigmas, "latent_index_RL": indices}
    return {name: pad(part)[0].to(device) for name, part in parts.items()}


def _wanted(model: CachedTransformer, rows: Sequence[_Row]) -> Tensor:
    """Velocities noise - latents, zero for clean pictures, [R, L, D]."""
    device = model.device
    parts = []
    for row in rows:
        wanted = [torch.zeros(0, model.latent_size, device=device)]
        for block in row.latents:
            clean = block.latents_LD.to(device)
            wanted.append(torch.zeros_like(clean) if block.noise_LD is None else block.noise_LD.to(device) - clean)
        parts.append(torch.cat(wanted))
    return pad(parts)[0]
