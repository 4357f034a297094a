"""What one forward of a unified model is fed, and what it says. Shape suffixes: project/trajectory.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from project.models.context import KeysValues


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures to be read by the vision encoder, as patches padded to the longest.

    Attributes:
        patches_IMD: I pictures of at most M patches.
        index_IM: place of each patch in the position tables.
        visible_IM: false for padding.
        row_I, slot_I: row of the query and the slot of the first patch among its understanding tokens.
    """

    patches_IMD: Tensor
    index_IM: Tensor
    visible_IM: Tensor
    row_I: Tensor
    slot_I: Tensor


@dataclass(frozen=True, kw_only=True)
class Query:
    """What one forward feeds: per row T understanding tokens (text, ViT, delimiters), then L latent tokens.

    The two kinds are kept apart because each goes through its own expert; attention does not care about their
    order, positions and masks say everything.

    Attributes:
        ids_RT: token ids (any id where a picture's patch will stand).
        position_RT, latent_position_RL: positions as the backbone counts them; with several axes one dimension more.
        pictures: patches that replace some of the understanding tokens.
        latents_RLD, sigma_RL, latent_index_RL: noised (or, at sigma 0, clean) latent tokens, their flow time ([R, 1]
            where all tokens of a row have the same), and their place in the position table.
        visible_RT: false for padding among the understanding tokens.
        mask: who sees whom inside the query: in order ("causal"), everybody ("full") or bool [R, T+L, T+L].
        logits: next-token logits after the last token, after the tokens marked in a bool [R, T] (flattened), or
            of none.
        rows: how many rows read each context; equal shares if None.
    """

    ids_RT: Tensor
    position_RT: Tensor
    pictures: Pictures | None = None
    latents_RLD: Tensor | None = None
    sigma_RL: Tensor | None = None
    latent_index_RL: Tensor | None = None
    latent_position_RL: Tensor | None = None
    visible_RT: Tensor | None = None
    mask: Literal["causal", "full"] | Tensor = "full"
    logits: Literal["last"] | Tensor | None = None
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """What one forward says: logits [R, V] or [marked, V], velocities [R, L, D], keys and values of the query."""

    logits: Tensor | None
    velocity_RLD: Tensor | None
    keys_values: KeysValues


def pad(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack tensors of unequal length [n_i, ...] with zeros behind; also returns bool [rows, longest], true inside."""
    padded = nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    lengths = torch.tensor([len(part) for part in parts], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device)[None] < lengths[:, None]


def merge(queries: Sequence[Query]) -> Query:
    """Rows of several latent queries below one another, remembering how many each has."""

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(query, name) for query in queries])

    return Query(
        ids_RT=joined("ids_RT"),
        position_RT=joined("position_RT"),
        latents_RLD=joined("latents_RLD"),
        sigma_RL=joined("sigma_RL"),
        latent_index_RL=joined("latent_index_RL"),
        latent_position_RL=joined("latent_position_RL"),
        mask="full",
        rows=tuple(query.ids_RT.shape[0] for query in queries),
    )
