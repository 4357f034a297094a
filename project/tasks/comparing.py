"""Several ways from the same first pictures, side by side. For evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from project.core.timing import Stopwatch
from project.models.base import UnifiedModel
from project.rewards.scoring import Score
from project.samplers.base import Sampler
from project.tasks.base import Task
from project.tasks.turn import Turn
from project.trajectory import Group, Prompt, Replay, SampleKey, Trajectory


class Comparing(Task):
    """The first pictures of the first task, then what every task arrives at: refining beside redrawing, for instance.

    Args:
        tasks: tasks for evaluation whose first group holds the same first pictures. Where two give a group the same
            name, that of the later task bears its place as well ("round1.2" for the second one's "round1").
    """

    def __init__(self, tasks: list[Task]) -> None:
        if not tasks:
            raise ValueError("tasks is empty: name at least one task")
        self.tasks = tasks

    @property
    def turns(self) -> Sequence[Turn]:
        return [turn for task in self.tasks for turn in task.turns]

    @property
    def evaluates_with_scores(self) -> bool:
        return any(task.evaluates_with_scores for task in self.tasks)

    def check(self, prompts: Sequence[Prompt]) -> None:
        for task in self.tasks:
            task.check(prompts)

    def rollout(
        self,
        model: UnifiedModel,
        prompts: Sequence[Prompt],
        keys: Sequence[SampleKey],
        sampler: Sampler,
        window: range,
        stopwatch: Stopwatch,
        score: Score | None = None,
    ) -> list[Group]:
        """Raises ValueError for trained steps, and whatever the tasks raise."""
        if len(window):
            raise ValueError("a comparison is for evaluation: it trains no steps")
        groups: list[Group] = []
        for place, task in enumerate(self.tasks, start=1):
            made = task.rollout(
                model, prompts, keys, sampler, window, stopwatch, score if task.evaluates_with_scores else None
            )
            labels = {group.label for group in groups}
            for group in made if not groups else made[1:]:
                taken = group.label in labels
                groups.append(dataclasses.replace(group, label=f"{group.label}.{place}") if taken else group)
        return groups

    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        return self.tasks[0].replay(model, trajectories, sampler, context_gradient=context_gradient)
