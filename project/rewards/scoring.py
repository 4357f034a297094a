"""Scores on their way: the rewards of what is drawn already are asked for while the next is drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import torch

from project.core.errors import ScoringFailed
from project.core.metrics import merged
from project.core.timing import Stopwatch
from project.rewards.base import Reward, score
from project.trajectory import Scores, Trajectory

Score = Callable[[Sequence[Trajectory], int], "Future[Scores]"]
"""(trajectories, G) -> their scores, once they are known. What a task calls as soon as whole groups are drawn."""


class Scorer:
    """Asks the rewards, one request after the other.

    Args:
        rewards: who scores.
        overlap: in a thread of its own, so that drawing goes on meanwhile: for judges that work elsewhere (a server).
            Otherwise at once, which the stopwatch counts as the phase `judge`.
        stopwatch: of the phases of an update.
    """

    def __init__(self, rewards: Sequence[Reward], overlap: bool = False, stopwatch: Stopwatch | None = None) -> None:
        self.rewards = rewards
        self.stopwatch = stopwatch or Stopwatch()
        self._busy = 0.0
        self._lost: ScoringFailed | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge") if overlap else None

    def __call__(self, trajectories: Sequence[Trajectory], group_size: int) -> Future[Scores]:
        """Their scores. What the rewards raise is raised by `result()`."""
        if self._pool is not None:
            return self._pool.submit(self._score, trajectories, group_size)
        future: Future[Scores] = Future()
        with self.stopwatch.phase("judge"):
            future.set_result(self._score(trajectories, group_size))
        return future

    def busy(self) -> float:
        """Seconds that the rewards were at work since the last call, whether anybody waited for them or not."""
        seconds, self._busy = self._busy, 0.0
        return seconds

    def close(self) -> None:
        """Drop what has not begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _score(self, trajectories: Sequence[Trajectory], group_size: int) -> Scores:
        if self._lost is not None:  # each of what is queued would wait as long again
            raise self._lost
        start = time.perf_counter()
        try:
            with torch.no_grad():
                return score(trajectories, group_size, self.rewards)
        except ScoringFailed as error:
            self._lost = error
            raise
        finally:
            self._busy += time.perf_counter() - start


def collected(pending: Sequence[Future[Scores]], stopwatch: Stopwatch) -> Scores:
    """The scores, once they are there; waiting for them is the phase `judge_wait`. Raises as `joined`."""
    with nullcontext() if all(future.done() for future in pending) else stopwatch.phase("judge_wait"):
        return joined([future.result() for future in pending])


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of consecutive trajectories as one. Raises ValueError if there are none."""
    if not parts:
        raise ValueError("nothing was scored: a task hands what it draws to `score`")
    if len(parts) == 1:
        return parts[0]
    well_formed = [part.well_formed_N for part in parts if part.well_formed_N is not None]
    return Scores(
        reward_N=torch.cat([part.reward_N for part in parts]),
        text_reward_N=torch.cat([part.text_reward_N for part in parts]),
        confidence_NQ=tuple(row for part in parts for row in part.confidence_NQ),
        well_formed_N=torch.cat(well_formed) if well_formed else None,
        metrics=merged(part.metrics for part in parts),
    )
