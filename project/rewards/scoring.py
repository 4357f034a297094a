"""Scores on their way: the rewards of what is drawn already are asked for while the next is drawn."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from project.core.errors import ScoringFailed
from project.core.jobs import Worker
from project.core.metrics import merged
from project.core.ranks import ALONE, Ranks
from project.core.timing import Stopwatch
from project.rewards.base import Reward, RewardOutput, ask, combined_in_groups
from project.trajectory import Group, Prompt, Scores, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What every reward says of some samples, and their prompts."""

    outputs: tuple[RewardOutput, ...]
    prompts: tuple[Prompt, ...]


class Scorer:
    """Asks the rewards, one request after the other; `collect` waits for what they say.

    Args:
        rewards: who scores.
        overlap: in a thread of its own, so that drawing goes on meanwhile: for judges that work elsewhere (a server).
            Otherwise at once, which the stopwatch counts as the phase `judge`.
        stopwatch: of the phases of an update.
        ranks: the processes that the samples of a group are dealt to.
        floor: normalise each reward within its group, see `combined_in_groups`; None = do not.
        skip_stopped: ask nothing about a sample that had stopped before its round. In training it has its credit from
            earlier rounds: its answers would cost, and be imputed to the samples that go on. In an evaluation its
            picture is the one that is measured.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        overlap: bool = False,
        stopwatch: Stopwatch | None = None,
        ranks: Ranks = ALONE,
        skip_stopped: bool = False,
        floor: float | None = None,
    ) -> None:
        self.rewards = rewards
        self.stopwatch = stopwatch or Stopwatch()
        self.ranks = ranks
        self.skip_stopped = skip_stopped
        self.floor = floor
        self._busy = 0.0
        self._lost: ScoringFailed | None = None
        self._at_once = not overlap
        self._worker = Worker("judge", beside=overlap)

    def __call__(self, trajectories: Sequence[Trajectory]) -> Future[Said]:
        """Ask about some samples. What the rewards raise is raised by `result()`."""
        with self.stopwatch.phase("judge") if self._at_once else nullcontext():
            return self._worker.submit(self._ask, trajectories)

    def collect(self, group: Group) -> Scores:
        """The scores of this rank's samples of a group, compared within whole groups; metrics are those of all ranks.

        Waiting is the phase `judge_wait`. A collective call: every rank makes it, for the same group.

        Raises:
            ScoringFailed: on every rank (`agreed`), if the rewards of one of them failed.
            ValueError: if the samples of the group were not handed to this scorer.
        """
        failed: ScoringFailed | None = None
        mine: list[Said] = []
        with nullcontext() if all(future.done() for future in group.pending) else self.stopwatch.phase("judge_wait"):
            try:
                mine = [future.result() for future in group.pending]
            except ScoringFailed as error:
                failed = error
        everybody = self.ranks.gather(None if failed else (mine, len(group), group.metrics))
        if failed is not None:
            raise type(failed)(str(failed), agreed=True) from failed
        known = [part for part in everybody if part is not None]
        if len(known) < len(everybody):
            raise ScoringFailed("the rewards of another rank failed: its message says why", agreed=True)
        whole = joined([said for parts, _, _ in known for said in parts])
        if len(whole.prompts) != sum(number for _, number, _ in known):
            raise ValueError("some samples were not scored: a task hands everything that it draws to `score`")
        scores = combined_in_groups(whole.outputs, self.rewards, whole.prompts, group.size, self.floor)
        before = sum(number for _, number, _ in known[: self.ranks.rank])
        metrics = merged([scores.metrics, *(metrics for _, _, metrics in known)])
        return dataclasses.replace(scores.of(range(before, before + len(group))), metrics=metrics)

    def busy(self) -> float:
        """Seconds that the rewards were at work since the last call, whether anybody waited for them or not."""
        seconds, self._busy = self._busy, 0.0
        return seconds

    def close(self) -> None:
        """Drop what has not begun."""
        self._worker.close()

    def _ask(self, trajectories: Sequence[Trajectory]) -> Said:
        if self._lost is not None:  # each of what is queued would wait as long again
            raise self._lost
        start = time.perf_counter()
        asked = [n for n, t in enumerate(trajectories) if not (self.skip_stopped and t.stopped)]
        prompts = tuple(trajectory.prompt for trajectory in trajectories)
        try:
            with torch.no_grad():
                outputs = [
                    ask(reward, [trajectories[n] for n in asked]) if asked else NOTHING for reward in self.rewards
                ]
            return Said(outputs=tuple(_spread(output, asked, prompts) for output in outputs), prompts=prompts)
        except ScoringFailed as error:
            self._lost = error
            raise
        finally:
            self._busy += time.perf_counter() - start


NOTHING = RewardOutput(reward_N=torch.zeros(0))
"""What is said of no sample at all."""


def joined(parts: Sequence[Said]) -> Said:
    """What was said of consecutive samples, as one. Raises ValueError if there is nothing."""
    if not parts:
        raise ValueError("nothing was scored: a task hands what it draws to `score`")
    columns = zip(*(part.outputs for part in parts), strict=True)
    prompts = [part.prompts for part in parts]
    return Said(
        outputs=tuple(_joined(column, prompts) for column in columns),
        prompts=tuple(prompt for part in prompts for prompt in part),
    )


def _joined(outputs: Sequence[RewardOutput], prompts: Sequence[Sequence[Prompt]]) -> RewardOutput:
    if len(outputs) == 1:
        return outputs[0]
    parts = list(zip(outputs, prompts, strict=True))
    asks = any(output.confidence_NQ is not None for output in outputs)
    judges_form = any(output.well_formed_N is not None for output in outputs)
    return RewardOutput(
        reward_N=torch.cat([output.reward_N for output in outputs]),
        confidence_NQ=tuple(row for o, some in parts for row in _confidences(o, some)) if asks else None,
        details=tuple(detail for o, some in parts for detail in o.details or (None,) * len(some)),
        well_formed_N=torch.cat([_formed(o, some) for o, some in parts]) if judges_form else None,
        metrics=merged(output.metrics for output in outputs),
    )


def _spread(output: RewardOutput, asked: Sequence[int], prompts: Sequence[Prompt]) -> RewardOutput:
    """What was said of the samples at the places `asked`, as what is said of all: the others have no reward."""
    if len(asked) == len(prompts):
        return output
    reward_N = torch.full((len(prompts),), math.nan)
    reward_N[list(asked)] = output.reward_N.float()
    confidences: list[tuple[float | None, ...]] = [(None,) * len(prompt.questions) for prompt in prompts]
    details = [None] * len(prompts)
    formed_N = torch.ones(len(prompts), dtype=torch.bool)
    for place, n in enumerate(asked):
        confidences[n] = output.confidence_NQ[place] if output.confidence_NQ is not None else ()
        details[n] = output.details[place] if output.details else None
        formed_N[n] = output.well_formed_N is None or output.well_formed_N[place]
    return dataclasses.replace(
        output,
        reward_N=reward_N,
        confidence_NQ=None if output.confidence_NQ is None else tuple(confidences),
        details=tuple(details) if output.details else (),
        well_formed_N=None if output.well_formed_N is None else formed_N,
    )


def _confidences(output: RewardOutput, prompts: Sequence[Prompt]) -> Sequence[tuple[float | None, ...]]:
    if output.confidence_NQ is not None:
        return output.confidence_NQ
    return [(None,) * len(prompt.questions) for prompt in prompts]


def _formed(output: RewardOutput, prompts: Sequence[Prompt]) -> torch.Tensor:
    return torch.ones(len(prompts), dtype=torch.bool) if output.well_formed_N is None else output.well_formed_N
