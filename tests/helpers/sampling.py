"""Samplers, keys and rollouts in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from project.core.timing import Stopwatch
from project.models.base import UnifiedModel
from project.rewards.scoring import Scorer
from project.samplers.flow_sde import FlowSDE
from project.samplers.sampler import Sampler
from project.samplers.schedule import Schedule
from project.samplers.transition import Transition
from project.samplers.window import Window
from project.tasks.base import EvaluationTask, Rollout
from project.trajectory import Group, Prompt, SampleKey


def sde(
    num_steps: int,
    size: int | None = None,
    range: tuple[int, int] | None = None,
    *,
    shift: float = 3.0,
    transition: Transition | None = None,
    drawn: Literal["prompt", "update"] = "update",
) -> Sampler:
    """A sampler with a stochastic transition, Flow-SDE with noise level 0.7 if None."""
    return Sampler(
        schedule=Schedule(num_steps, shift), transition=transition or FlowSDE(0.7), window=Window(size, range, drawn)
    )


def at(seed: int, update: int, prompt: str = "", sample: int = 0) -> SampleKey:
    """A key of which only some parts matter."""
    return SampleKey(seed=seed, update=update, prompt=prompt, sample=sample)


def ode(num_steps: int, shift: float = 3.0) -> Sampler:
    return Sampler(schedule=Schedule(num_steps, shift))


def roll(
    task: EvaluationTask,
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    keys: Sequence[SampleKey],
    sampler: Sampler,
    steps: range | None,
    score: Scorer | None = None,
    stopwatch: Stopwatch | None = None,
    **others: Any,
) -> list[Group]:
    """What a task draws: in training with these stochastic steps, or in an evaluation if None."""
    if steps is not None:
        sampler = replace(sampler, window=Window(len(steps), (steps.start, steps.stop)))
    return task.rollout(
        Rollout(
            model=model,
            prompts=prompts,
            keys=keys,
            sampler=sampler,
            training=steps is not None,
            stochastic=steps is not None,
            score=score,
            stopwatch=stopwatch or Stopwatch(),
            **others,
        )
    )
