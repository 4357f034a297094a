"""Paired bootstrap over seeds and prompts: how sure a gain is. Pure functions of arrays.

Shape suffixes: S seeds, P prompts, K strata, R resamples. A stratum is a kind of prompt; every stratum has the same
weight in a mean, however many prompts it has. All figures are percentage points: outcomes in [0, 1] times 100.

The seeds and, within each stratum, the prompts are drawn with replacement, the same prompts for all seeds (the
"pigeonhole" bootstrap of a crossed design; Owen 2007, https://doi.org/10.1214/07-AOAS122). With few seeds their
share of the variance comes out a factor (S - 1) / S too small; with one seed the interval is about prompts alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.float32]
CHUNK = 1000
"""Resamples made at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95% interval [percentage points]."""

    mean: float
    low: float
    high: float


def bootstrap(value_SP: ArrayLike, strata_P: Sequence[str], resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean over seeds and strata, with the percentile interval of its bootstrap distribution.

    Raises ValueError if the shapes do not fit, a value is not finite, or there is nothing to resample.
    """
    values_SP = _checked(value_SP, strata_P)
    if resamples < 1:
        raise ValueError(f"resamples = {resamples}: give at least 1")
    strata, stratum_P, size_K = np.unique(np.asarray(strata_P), return_inverse=True, return_counts=True)
    weight_P = 1 / (len(strata) * size_K[stratum_P])
    exact = (values_SP @ weight_P).mean()
    draws = _draws(len(values_SP), tuple(stratum_P.tolist()), resamples, seed)
    weighted_PS = (values_SP * weight_P).T
    means = [((count_RP @ weighted_PS) * count_RS).sum(axis=1) / len(values_SP) for count_RS, count_RP in draws]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(mean=float(100 * exact), low=float(100 * low), high=float(100 * high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The mean outcome of those prompts that something is given of: sum(value * given) / sum(given).

    Whether it is given may differ between seeds, and between the evaluations that are compared.
    """

    value_SP: Floats
    given_SP: Floats
    """0 or 1."""


def bootstrap_shares(
    terms: Sequence[tuple[int, Share]], strata_P: Sequence[str], resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Sum of shares with their signs, and its percentile interval: [(1, after), (-1, before)] is a gain.

    It takes the draws of `bootstrap`, and agrees with it where everything is given. A resample in which nothing is
    given is left out. Raises ValueError as `bootstrap` does, and if nothing is given in all of a term.
    """
    checked = [
        (sign, _checked(share.value_SP * share.given_SP, strata_P), _checked(share.given_SP, strata_P))
        for sign, share in terms
    ]
    if not all(given_SP.any() for *_, given_SP in checked):
        raise ValueError("a share of nothing: no prompt has what is given")
    strata, stratum_P, size_K = np.unique(np.asarray(strata_P), return_inverse=True, return_counts=True)
    weight_P = 1 / (len(strata) * size_K[stratum_P])
    exact = sum(
        sign * (value_SP @ weight_P).sum() / (given_SP @ weight_P).sum() for sign, value_SP, given_SP in checked
    )
    sums = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for count_RS, count_RP in _draws(len(checked[0][1]), tuple(stratum_P.tolist()), resamples, seed):

            def total_R(value_SP: Floats, by_R: Counts = count_RS, by_P: Counts = count_RP) -> Floats:
                return np.asarray(((by_P @ (value_SP * weight_P).T) * by_R).sum(axis=1))

            sums.append(sum(sign * total_R(value_SP) / total_R(given_SP) for sign, value_SP, given_SP in checked))
    low, high = np.nanquantile(np.concatenate(sums), [0.025, 0.975])
    return Interval(mean=float(100 * exact), low=float(100 * low), high=float(100 * high))


def paired_bootstrap(
    before_SP: ArrayLike, after_SP: ArrayLike, strata_P: Sequence[str], resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean gain, after - before, of the same prompts and seeds. Raises ValueError as `bootstrap` does."""
    return bootstrap(_difference(after_SP, before_SP), strata_P, resamples, seed)


def resampled_counts(strata_P: Sequence[str], resamples: int = 10_000, seed: int = 0) -> Iterator[Counts]:
    """How often each prompt is drawn [R, P], in chunks of resamples: for figures that are not means of prompts.

    Of every stratum as many prompts are drawn as it has, with replacement. `bootstrap` with one seed of training takes
    the same draws for the same `seed`. Raises ValueError if there is nothing to resample.
    """
    if resamples < 1 or not strata_P:
        raise ValueError(f"{resamples} resamples of {len(strata_P)} prompts: give at least one of each")
    _, stratum_P = np.unique(np.asarray(strata_P), return_inverse=True)
    for _, count_RP in _draws(1, tuple(stratum_P.tolist()), resamples, seed):
        yield count_RP


# The figures of a table share prompts and seeds, and so their draws, which cost more than all the rest.
@lru_cache(maxsize=1)
def _draws(seeds: int, stratum_P: tuple[int, ...], resamples: int, seed: int) -> list[tuple[Counts, Counts]]:
    """How often each seed [R, S] and each prompt [R, P] is drawn, by chunks of resamples."""
    rng = np.random.default_rng(seed)
    columns = [np.flatnonzero(np.asarray(stratum_P) == stratum) for stratum in sorted(set(stratum_P))]
    draws = []
    for start in range(0, resamples, CHUNK):
        number = min(CHUNK, resamples - start)
        count_RP = np.empty((number, len(stratum_P)), np.float32)
        count_RS = _counts(rng, number, seeds)
        for column in columns:
            count_RP[:, column] = _counts(rng, number, len(column))
        draws.append((count_RS, count_RP))
    return draws


def _counts(rng: np.random.Generator, resamples: int, number: int) -> Counts:
    """How often each of `number` things comes up in as many draws with replacement [R, number]."""
    drawn = rng.integers(number, size=(resamples, number)) + number * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * number).reshape(resamples, number).astype(np.float32)


def _difference(a: ArrayLike, b: ArrayLike) -> Floats:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"pairs need the same seeds and prompts: got shapes {a.shape} and {b.shape}")
    return a - b


def _checked(value_SP: ArrayLike, strata_P: Sequence[str]) -> Floats:
    values_SP = np.asarray(value_SP, dtype=np.float64)
    if values_SP.ndim != 2 or values_SP.size == 0:
        raise ValueError(f"outcomes must be [seeds, prompts], with at least one of each: got shape {values_SP.shape}")
    if values_SP.shape[1] != len(strata_P):
        raise ValueError(f"{values_SP.shape[1]} prompts but {len(strata_P)} strata: give the stratum of every prompt")
    if not np.isfinite(values_SP).all():
        raise ValueError("an outcome is not finite: leave prompts without an outcome out, for all seeds and arms")
    return values_SP
