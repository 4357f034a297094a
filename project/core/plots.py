"""Figures for looking at one rollout, and at a judge: arrays in, a matplotlib `Figure` out.

Shape suffixes: project/trajectory.py; here R rows and C columns of a strip. Pictures are uint8 [height, width, 3].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from project.trajectory import Question

MARK = "#d95f02"
"""Colour of what is marked."""
SIDE = 1.0
"""Side of a picture [inches]."""


def picture_strip(
    pictures_RCHWC: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], marked: Sequence[int] = ()
) -> Figure:
    """Pictures in a grid, e.g. along the denoising path; marked columns get a frame and a coloured heading.

    Raises ValueError if the labels do not fit the grid.
    """
    if pictures_RCHWC.shape[:2] != (len(rows), len(columns)):
        raise ValueError(
            f"{len(rows)} row and {len(columns)} column labels for a grid of pictures {pictures_RCHWC.shape[:2]}: "
            "give one label per row and column"
        )
    size = (SIDE * len(columns) + 0.6, SIDE * len(rows) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    for place, (r, c) in enumerate(np.ndindex(len(rows), len(columns)), start=1):
        axes = figure.add_subplot(len(rows), len(columns), place)
        _show(axes, pictures_RCHWC[r, c])
        if r == 0:
            axes.set_title(columns[c], fontsize=8, color=MARK if c in marked else "black", parse_math=False)
        if c == 0:
            axes.set_ylabel(rows[r], fontsize=8, parse_math=False)
        if c in marked:
            axes.spines[:].set(visible=True, color=MARK, linewidth=2)
    return figure


def token_table(
    words: Sequence[Sequence[str]],
    log_prob: Sequence[Sequence[float]],
    entropy: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
) -> Figure:
    """Sampled texts, one a row: each token over its log-probability and entropy [nats], coloured by its probability.

    Raises ValueError if the number of tokens, log-probabilities and entropies differ in a row.
    """
    lengths = [len(row) for row in words]
    if lengths != [len(row) for row in log_prob] or lengths != [len(row) for row in entropy]:
        raise ValueError("token_table needs one log-probability and one entropy per token")
    probability_GT = np.full((len(words), max(lengths)), np.nan)
    figure = Figure(figsize=(0.9 * max(lengths) + 1, 0.45 * len(words) + 0.3), layout="constrained")
    axes = figure.subplots()
    for g, row in enumerate(words):
        probability_GT[g, : len(row)] = np.exp(log_prob[g])
        for t, word in enumerate(row):
            numbers = (round(log_prob[g][t], 2) + 0.0, entropy[g][t])  # + 0.0: no "-0.00"
            label = f"{word}\n{numbers[0]:.2f} | {numbers[1]:.2f}"
            axes.text(t, g, label, ha="center", va="center", fontsize=7, parse_math=False)
    axes.imshow(probability_GT, vmin=0, vmax=1.4, cmap="YlGn", aspect="auto")
    _table_axes(axes, rows, range(max(lengths)))
    return figure


def question_table(
    pictures: Sequence[np.ndarray],
    questions: Sequence[Question],
    confidence_GQ: Sequence[Sequence[float | None]],
    *,
    titles: Sequence[str],
) -> Figure:
    """Pictures over what the judge said of them: a row a question, the confidence in "yes"; "-" = unanswered.

    Raises ValueError if there is not one title and one confidence per question for each picture.
    """
    group = len(pictures)
    if len(titles) != group or [len(row) for row in confidence_GQ] != [len(questions)] * group:
        raise ValueError("question_table needs one title, and one confidence per question, for each picture")
    heights = [SIDE + 0.3, 0.26 * len(questions) + 0.1]
    figure = Figure(figsize=((SIDE + 0.2) * group + 2.8, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(2, group, height_ratios=heights)
    for g, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        axes = figure.add_subplot(grid[0, g])
        _show(axes, picture)
        axes.set_title(title, fontsize=8, parse_math=False)
    axes = figure.add_subplot(grid[1, :])
    confidence_QG = np.array([[np.nan if c is None else c for c in row] for row in confidence_GQ], dtype=float).T
    axes.imshow(confidence_QG, vmin=-0.4, vmax=1.4, cmap="RdYlBu", aspect="auto")
    for q, g in np.ndindex(*confidence_QG.shape):
        known = not np.isnan(confidence_QG[q, g])
        axes.text(g, q, f"{confidence_QG[q, g]:.2f}" if known else "-", ha="center", va="center", fontsize=8)
    _table_axes(axes, [f"{question.text} [{question.tag or question.kind}]" for question in questions], range(group))
    return figure


def advantage_bars(reward_G: Sequence[float], advantages: Mapping[str, Sequence[float]]) -> Figure:
    """The rewards of a group with their mean, and the advantages they become (by policy), sample by sample.

    A sample without a reward (NaN) has no bar, and no part in the mean.
    """
    sample_G = np.arange(len(reward_G))
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.bar(sample_G, reward_G, color="0.6")
    left.axhline(float(np.nanmean(reward_G)), color=MARK, linestyle="--", label="mean of the group")
    left.set_title("reward", fontsize=9)
    left.set_ylim(0, None)
    width = 0.8 / max(len(advantages), 1)
    for n, (name, advantage_G) in enumerate(advantages.items()):
        right.bar(sample_G + width * (n + 0.5) - 0.4, advantage_G, width, label=name)
    right.axhline(0, color="black", linewidth=0.8)
    right.set_title("advantage", fontsize=9)
    for axes in (left, right):
        axes.set_xticks(sample_G)
        axes.set_xlabel("sample", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=7)
    return figure


def reliability_diagram(
    count_B: np.ndarray,
    confidence_B: np.ndarray,
    truth_B: np.ndarray,
    rates: Mapping[str, Mapping[str, float | None]],
) -> Figure:
    """What is true at each confidence (on the diagonal: calibrated) over how often it is given; rates per tag.

    Args:
        count_B, confidence_B, truth_B: per bin of confidence its questions, their mean confidence and the share of
            them that is true; NaN in empty bins.
        rates: tag -> name of a rate -> its value, None where it is not known.
    """
    figure = Figure(figsize=(5 + 0.9 * len(rates), 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[4, 1 + 0.9 * len(rates)])
    edges = np.linspace(0.0, 1.0, len(count_B) + 1)
    left.bar(edges[:-1], count_B / max(count_B.sum(), 1), 1 / len(count_B), align="edge", color="0.85", label="share")
    left.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=0.8)
    known = count_B > 0
    left.plot(confidence_B[known], truth_B[known], marker="o", markersize=4, color=MARK, label="truth")
    left.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="confidence in yes",
    )
    left.set_title("reliability", fontsize=9)
    left.legend(fontsize=7, loc="upper left")
    names = list(dict.fromkeys(name for of in rates.values() for name in of))
    width = 0.8 / max(len(names), 1)
    for n, name in enumerate(names):
        heights = [value if (value := of.get(name)) is not None else np.nan for of in rates.values()]
        right.bar(np.arange(len(rates)) + width * (n + 0.5) - 0.4, heights, width, label=name)
    right.set_xticks(range(len(rates)), list(rates), fontsize=8, parse_math=False)
    right.set_ylim(0, 1)
    right.set_title("errors", fontsize=9)
    right.legend(fontsize=7, loc="upper left")
    return figure


def _show(axes: Axes, picture_HWC: np.ndarray) -> None:
    axes.imshow(picture_HWC, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _table_axes(axes: Axes, rows: Sequence[str], columns: range) -> None:
    """Row labels, column numbers and lines between the cells instead of ticks and a frame."""
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8, parse_math=False)
    axes.set_xticks(columns)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    for line in columns[1:]:
        axes.axvline(line - 0.5, color="white", linewidth=2)
    for line in range(1, len(rows)):
        axes.axhline(line - 0.5, color="white", linewidth=2)
