"""How a policy is measured: what is drawn, along which schedule, with which guidance, and how often it is refined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from project.benchmarks.base import Benchmark
from project.samplers.guidance import UNGUIDED, Guidance
from project.samplers.schedule import Schedule
from project.tasks.base import EvaluationTask
from project.tasks.editing import editing_as
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.self_reflection import SelfReflection
from project.trajectory import Prompt


@dataclass(frozen=True, kw_only=True)
class Refining:
    """Rounds of refinement in an evaluation: look at one's own picture, say what is wrong, draw again.

    Args:
        rounds: K; 0 = pictures are not refined.
        gate: refine only pictures whose reward (of the run's rewards) is lower; None = refine all.
        guidance: of the refined pictures.
        wording: what is said beside a picture, with "{prompt}" where the prompt is to stand; None = the model's own.

    Raises:
        ValueError: for fewer than 0 rounds.
    """

    rounds: int = 0
    gate: float | None = None
    guidance: Guidance = Guidance(text=4.0, image=2.0, interval=(0.0, 1.0), renorm="text_channel")
    wording: str | None = None

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise ValueError(f"model.init_args.evaluation.refine.rounds={self.rounds}: give 0 or more")

    def refined(self, task: EvaluationTask) -> EvaluationTask:
        """The task with the rounds, if it draws from a text alone; the reflection is written as its reasoning is."""
        if not self.rounds or not isinstance(task, ReasoningT2I):
            return task
        turn = task.turn
        return SelfReflection(
            first=task,
            rounds=self.rounds,
            candidates=1,
            max_tokens=turn.max_tokens,
            temperature=turn.temperature,
            top_p=turn.top_p,
            guidance=self.guidance,
            wording=self.wording,
            gate=self.gate,
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a policy is measured: one trajectory per prompt, whose pictures follow the ODE.

    Args:
        task: what is drawn; or, by the name of a benchmark with prompts of its own, the task of that benchmark.
        schedule: flow times at which pictures are denoised.
        seed: of the noise and of reasoning that is sampled.
        guided: false draws without any guidance, whatever the tasks and the benchmarks say.
        refine: rounds of refinement on top of a task that draws from a text.
        weights: the average of the EMA callback or the raw weights; None = as that callback says.
    """

    task: EvaluationTask | dict[str, EvaluationTask]
    schedule: Schedule
    seed: int = 0
    guided: bool = True
    refine: Refining = Refining()
    weights: Literal["ema", "raw"] | None = None

    @property
    def tasks(self) -> list[EvaluationTask]:
        return [*self.task.values()] if isinstance(self.task, Mapping) else [self.task]

    def task_of(self, prompt: Prompt) -> EvaluationTask:
        """The task that draws a prompt. Raises ValueError if none is for the benchmark that measures it."""
        if not isinstance(self.task, Mapping):
            return self.task
        if prompt.benchmark not in self.task:
            raise ValueError(
                f"model.init_args.evaluation.task has a task for {', '.join(self.task)}, but prompt {prompt.id!r} is "
                f"for {prompt.benchmark or 'no benchmark in particular'}: give the data module a file for each "
                "benchmark, by its name"
            )
        return self.task[prompt.benchmark]

    def finished(self, task: EvaluationTask, benchmark: Benchmark | None = None) -> EvaluationTask:
        """A task as the benchmark of its prompts wants it, with rounds and without guidance where this evaluation says
        so.

        Raises ValueError if the task cannot be so.
        """
        if benchmark is not None and benchmark.source is not None:
            task = editing_as(task, benchmark.source)
        if benchmark is not None and benchmark.change_guidance is not None:
            task = task.with_guidance(benchmark.change_guidance)
        refined = self.refine.refined(task)
        return refined if self.guided else refined.with_guidance(lambda _: UNGUIDED)
