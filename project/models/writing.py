"""Texts written token by token, without asking the device at every token.

Whether all texts have ended, and whether a short list of likely tokens was long enough, only the device knows. On a
GPU the host would wait for each answer, and launch nothing meanwhile. So it asks once for several tokens, and takes
back what it need not have written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from project.models.context import Context
from project.models.text import draw_likely_token, draw_token, tempered

Read = Callable[[Context, Tensor, Tensor], tuple[Context, Tensor]]
"""(context, tokens [R], which of them count [R]) -> the context with them read, and the logits [R, V] after them."""


class Drawn(NamedTuple):
    """A token of each row; `mask_R` is false for rows that had ended."""

    token_R: Tensor
    log_prob_R: Tensor
    entropy_R: Tensor
    mask_R: Tensor


def write(
    read: Read,
    context: Context,
    uniform_RT: Tensor,
    *,
    start: int,
    end: int,
    temperature: float,
    top_p: float,
    together: int,
) -> tuple[Context, list[Drawn], Tensor]:
    """As many tokens as the longest row has, at most T; the context has read all of them but the last.

    Also says which rows the limit cut off, bool [R]. The result is the same for any `together`.

    Args:
        uniform_RT: on the device.
        start, end: tokens that begin and end a text.
        together: tokens between two questions to the device.
    """
    rows, limit = uniform_RT.shape
    first, drawn = context.slots, list[Drawn]()
    token_R = torch.full((rows,), start, dtype=torch.long, device=uniform_RT.device)
    writing_R = torch.ones(rows, dtype=torch.bool, device=uniform_RT.device)
    draw = partial(_draw, read, end=end, temperature=temperature, top_p=top_p)
    with context.rows_end():
        while len(drawn) < limit:
            slots, position_R = context.slots, context.position_R
            numbers_RT = uniform_RT[:, len(drawn) : len(drawn) + together]
            context, some, sure_T = draw(context, token_R, writing_R, numbers_RT, ask=together == 1)
            still_R = some[-1].mask_R & (some[-1].token_R != end)
            more, sure = _both(still_R.any(), sure_T)
            if not sure:
                # Distributions are flat: the rest of this text is drawn with a question at every token.
                context, together = context.back_to(slots, position_R), 1
                continue
            drawn += some
            token_R, writing_R = some[-1].token_R, still_R
            if not more:
                break
        if together > 1:
            drawn = drawn[: int(torch.stack([some.mask_R for some in drawn]).sum(0).max())]
            # Nothing of a row that has ended counts, so positions stay.
            context = context.back_to(first + len(drawn), context.position_R)
    return context, drawn, writing_R


def _draw(
    read: Read,
    context: Context,
    token_R: Tensor,
    writing_R: Tensor,
    uniform_RT: Tensor,
    *,
    end: int,
    temperature: float,
    top_p: float,
    ask: bool,
) -> tuple[Context, list[Drawn], list[Tensor]]:
    """Reads and draws a token of each row for each number. Unless it may ask, it says of which tokens it is sure."""
    some, sure_T = list[Drawn](), list[Tensor]()
    greedy = temperature == 0
    for uniform_R in uniform_RT.unbind(1):
        context, logits_RV = read(context, token_R, writing_R)
        log_prob_RV = torch.log_softmax(tempered(logits_RV, temperature), dim=-1)
        if ask:
            token_R = draw_token(log_prob_RV, uniform_R, greedy=greedy, top_p=top_p)
        else:
            token_R, sure = draw_likely_token(log_prob_RV, uniform_R, greedy=greedy, top_p=top_p)
            sure_T += [] if sure is None else [sure]
        drawn = Drawn(
            token_R=token_R,
            log_prob_R=log_prob_RV.gather(1, token_R[:, None])[:, 0],
            entropy_R=-(log_prob_RV.exp() * log_prob_RV).sum(-1),
            mask_R=writing_R,
        )
        some.append(drawn)
        writing_R = writing_R & (token_R != end)
    return context, some, sure_T


def _both(more: Tensor, sure_T: list[Tensor]) -> tuple[bool, bool]:
    """Two answers for one wait: whether a row is still writing, and whether every token is sure."""
    if not sure_T:
        return bool(more), True
    answers: list[bool] = torch.stack([more, torch.stack(sure_T).all()]).tolist()
    return answers[0], answers[1]
