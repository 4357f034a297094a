"""From Mask2Former's queries to detections: mmdet's post-processing, in pure functions of tensors.

Shape suffixes: Q queries, C classes, N detections, H W height and width [pixels].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6
"""Pixels added to a mask's area, so that an empty one has a score (0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """Detections of a picture, the most confident first."""

    score_N: Tensor
    label_N: Tensor
    """Class numbers."""
    mask_NHW: Tensor
    """bool, at the size of the picture."""
    box_N4: Tensor
    """int64 x0, y0, x1, y1 [pixels]; x1 and y1 are one beyond the last pixel."""


def instances(
    class_logits_QC: Tensor,
    mask_logits_QHW: Tensor,
    padded: tuple[int, int],
    resized: tuple[int, int],
    size: tuple[int, int],
    most: int,
    minimum_score: float = 0.0,
) -> Instances:
    """The most confident pairs of query and class, as mmdet's Mask2Former chooses them.

    The class probabilities of a query are p = softmax(class logits), without the last class ("no object"). Of all
    pairs (query, class) the `most` with the greatest p are taken: a query may come several times, each time as another
    class. The mask m of a query is its logits, enlarged bilinearly to the input's size, cut to the picture's part of
    it, and scaled bilinearly to the picture's size. A pixel belongs to it where m > 0. The score is

        p * sum(sigmoid(m) [m > 0]) / (sum([m > 0]) + 1e-6)

    and the box encloses the pixels. transformers' own post-processing takes each query once, at 384x384 pixels, and
    drops overlaps; it gives other detections.

    Args:
        class_logits_QC: one class more than there are, "no object" last.
        mask_logits_QHW: at the network's own size.
        padded: height and width of the network's input.
        resized: height and width of the picture in it, at its upper left.
        size: height and width of the picture itself.
        most: pairs of query and class.
        minimum_score: pairs whose score is not above this are left out. Empty masks have score 0, so they always are.
    """
    probability_QC = class_logits_QC.float().softmax(dim=-1)[:, :-1]
    classes = probability_QC.shape[1]
    top_N, pair_N = probability_QC.flatten().topk(min(most, probability_QC.numel()))
    # The mask's part of a score is at most 1, so these cannot be among the results: do not enlarge their masks.
    possible_N = top_N > minimum_score
    top_N, pair_N = top_N[possible_N], pair_N[possible_N]
    query_N, label_N = pair_N // classes, pair_N % classes
    queries, place_N = query_N.unique(return_inverse=True)
    mask_UHW = _at_size(mask_logits_QHW[queries].float(), padded, resized, size)
    inside_UHW = mask_UHW > 0
    area_U = inside_UHW.flatten(1).sum(-1)
    quality_U = (mask_UHW.sigmoid() * inside_UHW).flatten(1).sum(-1) / (area_U + EPSILON)
    score_N = top_N * quality_U[place_N]
    order_N = score_N.argsort(descending=True, stable=True)
    order_N = order_N[score_N[order_N] > minimum_score]
    place_N = place_N[order_N]
    return Instances(
        score_N=score_N[order_N],
        label_N=label_N[order_N],
        mask_NHW=inside_UHW[place_N],
        box_N4=boxes(inside_UHW)[place_N],
    )


def boxes(mask_NHW: Tensor) -> Tensor:
    """int64 x0, y0, x1, y1 [N, 4] around each mask; zeros around an empty one."""
    found = torch.zeros(len(mask_NHW), 4, dtype=torch.long, device=mask_NHW.device)
    for n, mask_HW in enumerate(mask_NHW):
        rows, columns = (mask_HW.any(dim=axis).nonzero().flatten() for axis in (1, 0))
        if len(rows):
            found[n] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return found


def _at_size(mask_QHW: Tensor, padded: tuple[int, int], resized: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Masks at the picture's own size."""
    mask_1QHW = mask_QHW[None]
    if mask_QHW.numel():  # interpolate refuses no masks at all.
        mask_1QHW = F.interpolate(mask_1QHW, padded, mode="bilinear", align_corners=False)
        mask_1QHW = mask_1QHW[..., : resized[0], : resized[1]]
        mask_1QHW = F.interpolate(mask_1QHW, size, mode="bilinear", align_corners=False)
        return mask_1QHW[0]
    return mask_QHW.new_zeros(0, *size)
