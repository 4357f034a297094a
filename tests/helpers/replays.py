"""A replay of five samples with one text and one picture each: every tensor is random, nothing is drawn."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from project.core.randomness import keyed_generator, normal
from project.objectives.base import Counts, LossInputs
from project.trajectory import Replay, SampleKey

B, T, K, L, D, STATES = 5, 6, 3, 4, 2, 3
COUNTS = Counts(samples=B, steps=B * K, tokens=2 + 3 + 4 + 5 + 6, sequences=B)
ADVANTAGE = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.7], dtype=torch.float64)
KEYS = [SampleKey(seed=3, update=7, prompt="p", sample=n) for n in range(B)]


class Linear:
    """`v = slope * x + sigma`: a velocity that can be followed by hand."""

    def __init__(self, slope: float) -> None:
        self.slope = torch.tensor(slope, dtype=torch.float64)
        self.guided: list[bool] = []

    def __call__(self, x_RKLD: Tensor, sigma_K: Tensor, *, guided: bool = True) -> Tensor:
        self.guided.append(guided)
        return self.slope * x_RKLD + sigma_K[:, None, None]


def replay(seed: int = 0, spread: float = 0.3, moved: float = 0.1) -> Replay:
    """Text r has r + 2 tokens; `moved` is how far the mean of a step is from that of the rollout."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * spread

    old_text, old_image, mean = normal(B, T) - 2, normal(B, K) - 0.5, normal(B, K, L, D)
    made = Replay(
        text_log_prob_RT=old_text + normal(B, T),
        old_text_log_prob_RT=old_text,
        entropy_RT=normal(B, T).abs() * 3,
        token_mask_RT=torch.arange(T)[None] < torch.tensor([2, 3, 4, 5, 6])[:, None],
        text_sample_R=torch.arange(B),
        image_log_prob_RK=old_image + normal(B, K),
        old_image_log_prob_RK=old_image,
        step_mask_RK=torch.ones(B, K, dtype=torch.bool),
        image_sample_R=torch.arange(B),
        mean_RKLD=mean,
        old_mean_RKLD=mean - moved * normal(B, K, L, D),
        velocity_RKLD=normal(B, K, L, D),
        std_RK=normal(B, K).abs() + 0.5,
        dt_RK=-(normal(B, K).abs() + 0.01),
        clean_RLD=normal(B, L, D),
        velocity=Linear(0.4),
        old_velocity=Linear(0.3),
    )
    reference = dataclasses.replace(
        made,
        text_log_prob_RT=old_text + normal(B, T),
        mean_RKLD=mean + normal(B, K, L, D),
        velocity_RKLD=normal(B, K, L, D),
        velocity=Linear(0.1),
    )
    return dataclasses.replace(made, reference=reference)


def states(stream: str = "forward process", lo: float = 0.0, hi: float = 1.0) -> tuple[list[float], Tensor]:
    """Flow times and noise [B, STATES, L, D] of the forward process, by its rule written again."""
    part = torch.rand(STATES, generator=keyed_generator(KEYS[0].seed, KEYS[0].update, stream, "flow times"))
    sigma = [lo + (hi - lo) * (k + part[k].item()) / STATES for k in range(STATES)]
    return sigma, normal(KEYS, stream, STATES, L, D)


def on_policy(made: Replay) -> Replay:
    """The same before any optimizer step."""
    return dataclasses.replace(
        made,
        text_log_prob_RT=made.old_text_log_prob_RT.clone(),
        image_log_prob_RK=made.old_image_log_prob_RK.clone(),
        old_mean_RKLD=made.mean_RKLD.clone(),
        old_velocity=None,
    )


def inputs(made: Replay, rows: list[int] | None = None, **changes: object) -> LossInputs:
    """A micro-batch of some samples (all if None), whose text advantage is minus the image's."""
    rows = list(range(B)) if rows is None else rows
    given = LossInputs(
        replay=share(made, rows),
        image_advantage_B=ADVANTAGE[rows],
        text_advantage_B=-ADVANTAGE[rows],
        counts=COUNTS,
        keys=[KEYS[row] for row in rows],
    )
    return dataclasses.replace(given, **changes)


def share(made: Replay, rows: list[int]) -> Replay:
    """The replay of some samples."""
    changes = {
        name: value[rows]
        for name in made.__slots__
        if isinstance(value := getattr(made, name), Tensor) and name not in ("text_sample_R", "image_sample_R")
    }
    if made.reference is not None:
        changes["reference"] = share(made.reference, rows)
    numbers = torch.arange(len(rows))
    return dataclasses.replace(made, **changes, text_sample_R=numbers, image_sample_R=numbers)
