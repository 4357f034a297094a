"""Several ways from the same first pictures, side by side. For evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from project.models.base import UnifiedModel
from project.samplers.base import Sampler
from project.scoring import Score
from project.tasks.base import Task
from project.timing import Stopwatch
from project.trajectory import Group, Prompt, Replay, SampleKey, Trajectory


class Comparing(Task):
    """The first pictures of the first task, then what every task arrives at: refining beside redrawing, for instance.

    Args:
        tasks: tasks for evaluation whose first group holds the same first pictures.
    """

    def __init__(self, tasks: list[Task]) -> None:
        if not tasks:
            raise ValueError("tasks is empty: name at least one task")
        self.tasks = tasks

    @property
    def evaluates_with_scores(self) -> bool:
        return any(task.evaluates_with_scores for task in self.tasks)

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
        for task in self.tasks:
            made = task.rollout(
                model, prompts, keys, sampler, window, stopwatch, score if task.evaluates_with_scores else None
            )
            groups += made if not groups else made[1:]
        return groups

    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        return self.tasks[0].replay(model, trajectories, sampler, context_gradient=context_gradient)
