"""The greedy sample of each prompt, as a baseline that its rewards are compared with (ReMax, arXiv 2310.10505)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from project.core.ranks import Ranks
from project.rewards.scoring import Scorer
from project.tasks.base import Rollout, Task
from project.trajectory import Group


def with_greedy(groups: Sequence[Group], task: Task, rollout: Rollout) -> list[Group]:
    """The groups of a rollout, each with one more sample of every prompt: greedy text, picture by the ODE."""
    alone = dataclasses.replace(rollout, keys=rollout.keys[:: rollout.size], training=False, stochastic=False)
    (greedy,) = task.greedy().rollout(alone)
    return [dataclasses.replace(group, greedy=greedy) for group in groups]


def scored(greedy: Group | None, scorer: Scorer) -> Group | None:
    """With its rewards; None where there is no greedy sample. A collective call if there is one."""
    if greedy is None:
        return None
    return dataclasses.replace(greedy, scores=scorer.collect(greedy), pending=())


def baselines(group: Group, ranks: Ranks) -> tuple[Tensor | None, Tensor | None]:
    """Reward and text reward [P] of the greedy samples of all ranks; None without them."""
    if group.greedy is None or group.greedy.scores is None:
        return None, None
    reward_P, text_reward_P = ranks.whole(group.greedy.scores.reward_N, group.greedy.scores.text_reward_N)
    return reward_P, text_reward_P
