"""Fits the detector's constants so that its probabilities are frequencies, and measures how well they are.

`fit` minimises the negative log-likelihood of the true contents of degraded pictures (`degradation`): two
coefficients each for colour and for shape with size, and a logistic regression of empty / object / other. The result of
`fit(np.random.default_rng(0))` stands in `detector.CALIBRATION`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from project.shapes.degradation import EMPTY, Degraded, degraded_pictures
from project.shapes.detector import Calibration, measure
from project.shapes.reading import COLOUR_NAMES
from project.shapes.scenes import SHAPES, SIZES, Object


def fit(rng: np.random.Generator, number: int = 4000, penalty: float = 1e-4) -> Calibration:
    """Constants fitted on `number` degraded pictures; `penalty` is the ridge of the logistic weights."""
    degraded = degraded_pictures(rng, number)
    evidence = measure(degraded.pictures)
    presence_M, colour_M, shape_M = map(torch.from_numpy, truth_indices(degraded))
    is_object_M = presence_M == 1
    return Calibration(
        colour=_fit_margins(torch.from_numpy(evidence.colour_MC)[is_object_M], colour_M[is_object_M]),
        shape=_fit_margins(torch.from_numpy(evidence.shape_MK)[is_object_M], shape_M[is_object_M]),
        **_fit_presence(torch.from_numpy(evidence.presence_MF), presence_M, penalty),
    )


def truth_indices(degraded: Degraded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per cell [M]: presence (0 empty, 1 object, 2 other), colour, and shape * 2 + size (0 where no object is)."""
    rows = []
    for content in (content for contents in degraded.truth for content in contents):
        if isinstance(content, Object):
            shape = SHAPES.index(content.shape) * len(SIZES) + SIZES.index(content.size or "large")
            rows.append((1, COLOUR_NAMES.index(content.colour), shape))
        else:
            rows.append((0 if content == EMPTY else 2, 0, 0))
    presence_M, colour_M, shape_M = np.array(rows).T.copy()
    return presence_M, colour_M, shape_M


def _minimise(parameters: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(parameters)
        value.backward()
        return value

    optimizer.step(closure)
    return parameters.detach()


def _fit_margins(margin_MK: Tensor, truth_M: Tensor) -> tuple[float, float]:
    logs = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    powers_2MK = torch.stack([margin_MK, margin_MK**3])
    best = _minimise(logs, lambda logs_2: cross_entropy(-torch.tensordot(logs_2.exp(), powers_2MK, 1), truth_M))
    linear, cubic = best.exp().tolist()
    return round(linear, 3), round(cubic, 3)


def _fit_presence(features_MF: Tensor, truth_M: Tensor, penalty: float) -> dict[str, tuple[float, ...]]:
    features = features_MF.shape[1]
    weights = torch.zeros(features, 2, dtype=torch.float64, requires_grad=True)
    baseline = torch.zeros(features, 1, dtype=torch.float64)

    def loss(weights_F2: Tensor) -> Tensor:
        logits = features_MF @ torch.cat([baseline, weights_F2], dim=1)
        return cross_entropy(logits, truth_M) + penalty * (weights_F2**2).mean()

    best = _minimise(weights, loss).T.tolist()
    object_weights, other_weights = (tuple(round(w, 3) for w in row) for row in best)
    return {"object_weights": object_weights, "other_weights": other_weights}


def expected_calibration_error(confidence: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Mean over equally wide bins, weighted by their share, of |mean confidence - frequency of truth|."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        (index == b).mean() * abs(confidence[index == b].mean() - truth[index == b].mean())
        for b in range(bins)
        if (index == b).any()
    ]
    return float(sum(gaps))
