"""What a reward is: a callback that scores the trajectories of an update. `score` asks them all, `combine` adds up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from lightning import Callback
from torch import Tensor

from project.trajectory import Prompt, Scores, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOutput:
    """What one reward says of N samples."""

    reward_N: Tensor
    """Higher is better; NaN where the sample could not be scored."""
    confidence_NQ: tuple[tuple[float | None, ...], ...] | None = None
    """Per sample and question of its prompt; None = unanswered. None as a whole if no questions were asked."""
    well_formed_N: Tensor | None = None
    """bool: whether the text is as it should be, so that its image may be trained; None = this reward does not say."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Scalars to log, by name."""


class Reward(Callback, ABC):
    """Scores samples. A callback, so that it is named in YAML and may use the trainer's hooks.

    Args:
        weight: factor in the sum of rewards; with 0 it is only logged.
        text_only: it counts for the text objective alone (format rewards).
    """

    def __init__(self, *, weight: float = 1.0, text_only: bool = False) -> None:
        self.weight = weight
        self.text_only = text_only

    @abstractmethod
    def score(self, trajectories: Sequence[Trajectory], group_size: int) -> RewardOutput:
        """Score N samples, prompt by prompt, `group_size` of each. What cannot be scored is NaN, never 0."""

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise ValueError, before any training, if the prompts lack what this reward needs."""
        return None

    def stop_waiting(self) -> None:
        """The run is to end: do not wait for what is away. Called from a signal's handler, see `Judge.stop_waiting`."""
        return None

    def preflight(self) -> None:
        """Raise, before any training, if what this reward relies on (a judge, a server) does not work."""
        return None


def score(trajectories: Sequence[Trajectory], group_size: int, rewards: Sequence[Reward]) -> Scores:
    """Ask every reward and add up. Raises ValueError as `combine` does."""
    outputs = [reward.score(trajectories, group_size) for reward in rewards]
    return combine(outputs, [reward.weight for reward in rewards], [reward.text_only for reward in rewards])


def combine(outputs: Sequence[RewardOutput], weights: Sequence[float], text_only: Sequence[bool]) -> Scores:
    """Weighted sums of rewards: those for both policies, and those for the text alone.

    A sample that a reward of non-zero weight could not score is NaN. Confidences are those of the first output that
    has any; a sample is well formed if every output that says so (of whatever weight) says yes; a metric whose name
    is taken already gets the reward's place as a suffix.

    Raises:
        ValueError: if there is no output, or they differ in length.
    """
    if not outputs:
        raise ValueError("no reward: name at least one (for instance project.rewards.dvreward.DVReward)")
    lengths = {tuple(output.reward_N.shape) for output in outputs}
    if len(lengths) > 1:
        raise ValueError(f"rewards disagree on the number of samples: {sorted(lengths)}; each must score every sample")
    shared = torch.zeros_like(outputs[0].reward_N, dtype=torch.float32)
    text = shared.clone()
    metrics: dict[str, float] = {}
    for place, (output, weight, only_text) in enumerate(zip(outputs, weights, text_only, strict=True)):
        if weight and only_text:
            text = text + weight * output.reward_N
        elif weight:
            shared = shared + weight * output.reward_N
        metrics |= {f"{name}/{place}" if name in metrics else name: value for name, value in output.metrics.items()}
    confidences = (output.confidence_NQ for output in outputs if output.confidence_NQ is not None)
    well_formed = [output.well_formed_N for output in outputs if output.well_formed_N is not None]
    return Scores(
        reward_N=shared,
        text_reward_N=text,
        confidence_NQ=next(confidences, ()),
        well_formed_N=torch.stack(well_formed).all(0) if well_formed else None,
        metrics=metrics,
    )
