"""mmdet's post-processing of Mask2Former: by hand, and against a slow reference that takes nothing together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from project.benchmarks.geneval.instances import boxes, instances

YES = 3.0
"""Logit of a pixel that is an object's."""


def logits(*probabilities: list[float]) -> torch.Tensor:
    """Class logits [Q, C + 1] of these probabilities, the last of "no object"."""
    return torch.tensor(probabilities).log()


def mask(height: int, width: int, y: slice, x: slice, yes: float = YES) -> torch.Tensor:
    found = torch.full((height, width), -5.0)
    found[y, x] = yes
    return found


def test_by_hand_at_one_size() -> None:
    size = (4, 6)
    masks = torch.stack([mask(*size, slice(0, 2), slice(1, 4)), mask(*size, slice(3, 4), slice(0, 6), yes=0.5)])
    found = instances(logits([0.6, 0.3, 0.1], [0.1, 0.2, 0.7]), masks, size, size, size, most=3)
    sure, less = (torch.tensor(value).sigmoid().item() for value in (YES, 0.5))
    # Query 0 comes twice, as either class; the pair (query 1, class 0) is the fourth and left out.
    assert found.score_N.tolist() == pytest.approx([0.6 * sure, 0.3 * sure, 0.2 * less], rel=1e-5)
    assert found.label_N.tolist() == [0, 1, 1]
    assert found.box_N4.tolist() == [[1, 0, 4, 2], [1, 0, 4, 2], [0, 3, 6, 4]]
    assert found.mask_NHW.sum((1, 2)).tolist() == [6, 6, 6] and found.mask_NHW[2, 3].all()


def test_the_order_is_that_of_the_score_and_not_of_the_class_alone() -> None:
    size = (2, 2)
    everywhere = slice(0, 2)
    masks = torch.stack([mask(*size, everywhere, everywhere, yes=0.01), mask(*size, everywhere, everywhere, yes=9.0)])
    found = instances(logits([0.6, 0.4], [0.5, 0.5]), masks, size, size, size, most=2)
    assert found.score_N.tolist() == pytest.approx([0.5, 0.6 * 0.5025], abs=1e-3)


def test_empty_masks_and_unsure_pairs_are_left_out() -> None:
    size = (2, 2)
    nowhere, everywhere = torch.full(size, -1.0), torch.full(size, 9.0)
    found = instances(
        logits([0.8, 0.2], [0.4, 0.6], [0.2, 0.8]),
        torch.stack([nowhere, everywhere, everywhere]),
        size, size, size, most=9, minimum_score=0.3,
    )  # fmt: skip
    assert found.score_N.tolist() == pytest.approx([0.4], abs=1e-3)
    nothing = instances(logits([0.1, 0.9]), nowhere[None], size, size, size, most=9, minimum_score=0.3)
    assert nothing.mask_NHW.shape == (0, 2, 2) and nothing.box_N4.shape == (0, 4)


def test_filled_up_input_is_cut_before_it_is_scaled() -> None:
    """The network's 8x8 input holds a picture of 4x8 above zeros; the picture itself is 8x16."""
    logit_HW = mask(8, 8, slice(2, 8), slice(0, 8))
    found = instances(logits([0.9, 0.1]), logit_HW[None], (8, 8), (4, 8), (8, 16), most=1)
    assert found.mask_NHW.shape == (1, 8, 16)
    assert found.box_N4.tolist() == [[0, 4, 16, 8]]


def test_the_same_as_a_slow_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    class_logits_QC = 4 * torch.randn(7, 6, generator=generator)
    mask_logits_QHW = torch.randn(7, 5, 6, generator=generator)
    padded, resized, size = (32, 64), (25, 50), (12, 24)
    found = instances(class_logits_QC, mask_logits_QHW, padded, resized, size, most=20, minimum_score=0.05)
    pairs = sorted(
        (float(p), query, label)
        for query, row in enumerate(class_logits_QC.softmax(-1))
        for label, p in enumerate(row[:-1])
    )[::-1][:20]
    expected = []
    for p, query, label in pairs:
        m = F.interpolate(mask_logits_QHW[None, query, None], padded, mode="bilinear")[..., : resized[0], : resized[1]]
        m = F.interpolate(m, size, mode="bilinear")[0, 0]
        inside = [(y, x) for y in range(size[0]) for x in range(size[1]) if m[y, x] > 0]
        quality = sum(float(m[place].sigmoid()) for place in inside) / (len(inside) + 1e-6)
        ys, xs = zip(*inside, strict=True)
        if p * quality > 0.05:
            expected.append((p * quality, label, (min(xs), min(ys), max(xs) + 1, max(ys) + 1), len(inside)))
    expected.sort(reverse=True)
    assert 3 < len(expected) < 20
    assert found.score_N.tolist() == pytest.approx([score for score, *_ in expected], rel=1e-4)
    assert found.label_N.tolist() == [label for _, label, *_ in expected]
    assert found.box_N4.tolist() == [list(box) for *_, box, _ in expected]
    assert found.mask_NHW.sum((1, 2)).tolist() == [area for *_, area in expected]


def test_boxes() -> None:
    some = torch.zeros(2, 5, 7, dtype=torch.bool)
    some[1, 1, 2] = some[1, 3, 6] = True
    assert boxes(some).tolist() == [[0, 0, 0, 0], [2, 1, 7, 4]]
