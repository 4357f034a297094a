"""Token ids of a text, sampled text and its log-probabilities, and drawing a token from a distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SampledText:
    """Sampled tokens, padded: row r holds `length_R[r]` tokens, the last one the end token if `finished_R[r]`."""

    ids_RT: Tensor
    log_prob_RT: Tensor
    entropy_RT: Tensor
    length_R: Tensor
    finished_R: Tensor


@dataclass(frozen=True, kw_only=True)
class TextLogProbs:
    """Log-probabilities and entropies [nats] of given tokens; `mask_RT` is false for padding."""

    log_prob_RT: Tensor
    entropy_RT: Tensor
    mask_RT: Tensor

    def select(self, rows: Tensor) -> TextLogProbs:
        """The given rows, repeated at will."""
        return TextLogProbs(
            log_prob_RT=self.log_prob_RT.index_select(0, rows),
            entropy_RT=self.entropy_RT.index_select(0, rows),
            mask_RT=self.mask_RT.index_select(0, rows),
        )


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text that is only text: what reads like a control token (`<|im_end|>`) is spelled out.

    Where the vocabulary cannot spell it (one id a word), the unknown token stands for it.
    """
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    unknown = [] if tokenizer.unk_token_id is None else [tokenizer.unk_token_id]
    control = set(tokenizer.all_special_ids).difference(unknown)
    return [i for known in ids for i in (unknown if known in control else [known])]


def parted(tokenizer: Any, text: str) -> str:
    """A text for a chat that is tokenized as a whole: a blank parts whatever reads like a control token."""
    for token in sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True):
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def tempered(logits: Tensor, temperature: float) -> Tensor:
    return logits.float() if temperature in (0, 1) else logits.float() / temperature


LIKELIEST = 1024
"""So many tokens are looked at before the whole vocabulary is sorted."""


def _likeliest(probability_RV: Tensor, top_p: float) -> tuple[Tensor, Tensor, Tensor]:
    """The beginning of the sorted probabilities, its tokens, and whether it surely holds all that `top_p` keeps.

    The last value may be shared with tokens that were left out, so everything that is kept must be above it.
    """
    place_RK = probability_RV.topk(LIKELIEST, dim=-1, sorted=False).indices.sort(dim=-1).values
    sorted_RK, order_RK = probability_RV.gather(1, place_RK).sort(dim=-1, descending=True, stable=True)
    before_RK = sorted_RK.cumsum(-1) - sorted_RK
    beyond_RK = (before_RK >= top_p) | (sorted_RK > sorted_RK[:, -1:])
    covered = beyond_RK.all() & (before_RK[:, -1] >= top_p).all()
    return sorted_RK, place_RK.gather(1, order_RK), covered


def draw_token(log_prob_RV: Tensor, uniform_R: Tensor, *, greedy: bool, top_p: float) -> Tensor:
    """Tokens by inverse CDF, over the smallest set of likeliest tokens that holds `top_p` of the probability.

    Tokens of equal probability stand in the order of the vocabulary.
    """
    token_R, sure = draw_likely_token(log_prob_RV, uniform_R, greedy=greedy, top_p=top_p)
    if sure is None or bool(sure):
        return token_R
    probability_RV = log_prob_RV.exp()
    return _inverse_cdf(*probability_RV.sort(dim=-1, descending=True, stable=True), uniform_R, top_p)


def draw_likely_token(
    log_prob_RV: Tensor, uniform_R: Tensor, *, greedy: bool, top_p: float
) -> tuple[Tensor, Tensor | None]:
    """The same without asking the device, and whether it is sure, bool []; None = it is.

    Of a large vocabulary only the `LIKELIEST` tokens are looked at, which may be too few.
    """
    if greedy:
        return log_prob_RV.argmax(-1), None
    probability_RV = log_prob_RV.exp()
    if top_p < 1 and probability_RV.shape[1] > 2 * LIKELIEST:
        sorted_RK, order_RK, covered = _likeliest(probability_RV, top_p)
        return _inverse_cdf(sorted_RK, order_RK, uniform_R, top_p), covered
    return _inverse_cdf(*probability_RV.sort(dim=-1, descending=True, stable=True), uniform_R, top_p), None


def _inverse_cdf(sorted_RV: Tensor, order_RV: Tensor, uniform_R: Tensor, top_p: float) -> Tensor:
    """Tokens by the falling probabilities of `order_RV`."""
    before_RV = sorted_RV.cumsum(-1) - sorted_RV
    kept_RV = sorted_RV.where(before_RV < top_p, 0.0)
    cdf_RV = kept_RV.cumsum(-1)
    place_R = torch.searchsorted(cdf_RV, (uniform_R * cdf_RV[:, -1])[:, None], right=True)[:, 0]
    # Rounding may place a number at the very end of the CDF: the last kept token is meant.
    place_R = torch.minimum(place_R, (kept_RV > 0).sum(-1) - 1)
    return order_RV.gather(1, place_R[:, None])[:, 0]
