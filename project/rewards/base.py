"""What a reward is: a callback that scores trajectories. `score` asks them all, `combine` adds up."""

from __future__ import annotations

import dataclasses
import math
import sysconfig
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from torch import Tensor

from project.core.errors import ScoringFailed, WrongReturn, place_of_code
from project.core.metrics import Mean, Metric, Sum
from project.trajectory import Prompt, Scores, Trajectory

PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOutput:
    """What one reward says of N samples."""

    reward_N: Tensor
    """Of each sample by itself. Higher is better; NaN where the sample could not be scored."""
    confidence_NQ: tuple[tuple[float | None, ...], ...] | None = None
    """Per sample and question of its prompt; None = unanswered. None as a whole if no questions were asked."""
    details: tuple[Any, ...] = ()
    """One value per sample that `within_groups` needs beside these; it is sent between ranks by pickle."""
    well_formed_N: Tensor | None = None
    """bool: whether the text is as it should be, so that its image may be trained; None = this reward does not say."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """To log, by name."""

    def __post_init__(self) -> None:
        if not isinstance(self.reward_N, Tensor):
            raise TypeError(f"reward_N is a {type(self.reward_N).__name__}: give a tensor, torch.tensor([...])")
        for name, metric in self.metrics.items():
            if not isinstance(metric, Mean | Sum):
                raise TypeError(
                    f"metric {name!r} is a {type(metric).__name__}, which does not say how it adds up: give a Mean or "
                    "a Sum of project.core.metrics"
                )


class Reward(Callback, ABC):
    """Scores samples. A callback, so that it is named in YAML and may use the trainer's hooks.

    Args:
        weight: factor in the sum of rewards; with 0 it is only logged.
        text_only: it counts for the text objective alone (format rewards).
    """

    weight: float = 1.0
    text_only: bool = False

    def __init__(self, *, weight: float = 1.0, text_only: bool = False) -> None:
        self.weight = weight
        self.text_only = text_only

    @property
    def name(self) -> str:
        """For messages."""
        return type(self).__name__

    @abstractmethod
    def score(self, trajectories: Sequence[Trajectory]) -> RewardOutput:
        """Score N samples, each by itself. What cannot be scored is NaN, never 0.

        The samples of a group may be on several ranks. What depends on the whole group belongs into `within_groups`.
        """

    def within_groups(self, output: RewardOutput, prompts: Sequence[Prompt], group_size: int) -> Tensor:
        """The rewards [N] of whole groups, once every sample of the update is scored.

        Args:
            output: what `score` gave for all samples of all ranks, in order.
            prompts: the prompt of each sample; `group_size` samples in a row have the same one.
        """
        return output.reward_N

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise ValueError, before any training, if the prompts lack what this reward needs."""
        return None

    @property
    def longest_wait(self) -> float:
        """How long one call of `score` may wait for what is away [s], see `Judge.longest_wait`."""
        return 0.0

    def stop_waiting(self) -> None:
        """The run is to end: do not wait for what is away. Called from a signal's handler, see `Judge.stop_waiting`."""
        return None

    def preflight(self) -> None:
        """Raise, before any training, if what this reward relies on (a judge, a server) does not work."""
        return None


class RewardFailed(ScoringFailed):
    """A reward raised an error; the message names both."""


def ask(reward: Reward, trajectories: Sequence[Trajectory]) -> RewardOutput:
    """What a reward says of N samples.

    Raises:
        ScoringFailed: if it raises anything (RewardFailed), or its judge has stopped answering (JudgeUnavailable).
        torch.OutOfMemoryError: as it is: the remedy lies with the whole run.
    """
    try:
        output = reward.score(trajectories)
        if not isinstance(output, RewardOutput):
            got = f"a {type(output).__name__}, not a RewardOutput"
            raise WrongReturn(f"its score{place_of_code(reward.score)} returned {got}")
        if output.reward_N.shape != (len(trajectories),):
            got = f"a reward_N of shape {tuple(output.reward_N.shape)} for {len(trajectories)} samples"
            raise WrongReturn(f"its score{place_of_code(reward.score)} returned {got}: give one number for each")
        return output
    except (ScoringFailed, torch.OutOfMemoryError):
        raise
    except WrongReturn as error:
        raise RewardFailed(f"reward {reward.name} failed: {error}") from error
    except Exception as error:
        assert error.__traceback__ is not None
        if isinstance(error, TypeError) and error.__traceback__.tb_next is None:  # raised by the call itself
            raise RewardFailed(
                f"reward {reward.name} failed: its score{place_of_code(reward.score)} cannot be called as "
                f"score(trajectories): {error}"
            ) from error
        raise _failed(reward, error) from error


def score(trajectories: Sequence[Trajectory], rewards: Sequence[Reward]) -> Scores:
    """Ask every reward about samples, each by itself (evaluation), and add up. Raises as `ask` and `combine`."""
    outputs = [ask(reward, trajectories) for reward in rewards]
    return combine(outputs, [reward.weight for reward in rewards], [reward.text_only for reward in rewards])


def combined_in_groups(
    outputs: Sequence[RewardOutput],
    rewards: Sequence[Reward],
    prompts: Sequence[Prompt],
    group_size: int,
    floor: float | None = None,
) -> Scores:
    """The scores of whole groups: what each reward says within them, added up.

    Args:
        outputs: of each reward, of all samples.
        prompts: the prompt of each sample.
        floor: normalise each reward within its group too, for `Scores.compared_N` (see `normalised`); None = do not.

    Raises:
        RewardFailed: if a reward raises an error, or does not give a number for each sample.
        ValueError: as `combine` does.
    """
    within = []
    for reward, output in zip(rewards, outputs, strict=True):
        try:
            within.append(dataclasses.replace(output, reward_N=reward.within_groups(output, prompts, group_size)))
        except Exception as error:
            raise _failed(reward, error) from error
        if within[-1].reward_N.shape != (len(prompts),):
            got = f"a tensor of shape {tuple(within[-1].reward_N.shape)} for {len(prompts)} samples"
            code = f"its within_groups{place_of_code(reward.within_groups)}"
            raise RewardFailed(f"reward {reward.name} failed: {code} returned {got}: give one number for each")
    weights, text_only = [reward.weight for reward in rewards], [reward.text_only for reward in rewards]
    scores = combine(within, weights, text_only)
    if floor is None:
        return scores
    alike = [
        dataclasses.replace(output, reward_N=reward_N)
        for output, reward_N in zip(within, normalised(within, weights, group_size, floor), strict=True)
    ]
    compared = combine(alike, weights, text_only)
    return dataclasses.replace(scores, compared_N=compared.reward_N, text_compared_N=compared.text_reward_N)


def normalised(
    outputs: Sequence[RewardOutput], weights: Sequence[float], group_size: int, floor: float
) -> list[Tensor]:
    """Each reward's `(r - mean) / (std + floor)` within every group, fp32 [N]: scales do not decide (GDPO).

    Mean and std (ddof 0) are over the samples of the group that every reward of non-zero weight has scored: the others
    are not trained, so they leave no trace. They are NaN here.
    """
    if not outputs:
        return []
    counting = [output.reward_N for output, weight in zip(outputs, weights, strict=True) if weight]
    known_PG = (~torch.stack(counting or [outputs[0].reward_N]).isnan()).all(0).view(-1, group_size)
    number_P1 = known_PG.sum(1, keepdim=True).clamp_min(1)
    found = []
    for output in outputs:
        # In double precision, so that the order of a group's samples never decides.
        value_PG = output.reward_N.double().view(-1, group_size).where(known_PG, 0.0)
        centred_PG = (value_PG - value_PG.sum(1, keepdim=True) / number_P1).where(known_PG, 0.0)
        std_P1 = (centred_PG.square().sum(1, keepdim=True) / number_P1).sqrt()
        found.append((centred_PG / (std_P1 + floor)).where(known_PG, math.nan).flatten().float())
    return found


def _failed(reward: Reward, error: Exception) -> RewardFailed:
    return RewardFailed(f"reward {reward.name} failed{_line_of(error)}: {type(error).__name__}: {error}")


def _line_of(error: Exception) -> str:
    """The line that the error comes from: the innermost one of the user's own files, else of this project."""
    frames = traceback.extract_tb(error.__traceback__)
    libraries = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
    ours = [frame for frame in frames if not frame.filename.startswith((*libraries, "<"))]
    own = [frame for frame in ours if not Path(frame.filename).is_relative_to(PROJECT)] or ours
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def where(prompt: Prompt) -> str:
    """How a message about a prompt begins: its file and line, if it is from a file."""
    return f"{prompt.place}: " if prompt.place else ""


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
    metrics: dict[str, Metric] = {}
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
