"""Several tasks that start from the same first pictures, side by side. For evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from project.tasks.base import ChangeGuidance, EvaluationTask, Rollout
from project.tasks.turn import Turn
from project.trajectory import Group, Prompt


class Comparing(EvaluationTask):
    """The first pictures of the first task, then the results of every task, for instance refining beside redrawing.

    Args:
        tasks: tasks for evaluation that have the same first pictures. If two of them give a group the same name, the
            later one gets the number of its task too ("round1.2" for "round1" of the second task).
    """

    def __init__(self, tasks: list[EvaluationTask]) -> None:
        if not tasks:
            raise ValueError("tasks is empty: name at least one task")
        self.tasks = tasks

    @property
    def turns(self) -> Sequence[Turn]:
        return [turn for task in self.tasks for turn in task.turns]

    @property
    def evaluates_with_scores(self) -> bool:
        return any(task.evaluates_with_scores for task in self.tasks)

    def with_guidance(self, change: ChangeGuidance) -> Comparing:
        return self._changed(tasks=[task.with_guidance(change) for task in self.tasks])

    def check(self, prompts: Sequence[Prompt]) -> None:
        for task in self.tasks:
            task.check(prompts)

    def rollout(self, rollout: Rollout) -> list[Group]:
        """Raises ValueError in training, and whatever the tasks raise."""
        if rollout.training:
            raise ValueError("a comparison is for evaluation: it trains nothing")
        groups: list[Group] = []
        for place, task in enumerate(self.tasks, start=1):
            score = rollout.score if task.evaluates_with_scores else None
            made = task.rollout(dataclasses.replace(rollout, score=score))
            labels = {group.label for group in groups}
            for group in made if not groups else made[1:]:
                taken = group.label in labels
                groups.append(dataclasses.replace(group, label=f"{group.label}.{place}") if taken else group)
        return groups
