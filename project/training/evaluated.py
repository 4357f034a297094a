"""How any training of a policy is measured: one trajectory per evaluation prompt, always with the same noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from lightning import LightningModule
from lightning.pytorch import Callback

from project.benchmarks.base import Benchmark
from project.core.timing import Stopwatch
from project.datamodule import BENCHMARK, evaluated_prompts
from project.models.base import UnifiedModel
from project.rewards.base import Reward
from project.rewards.scoring import Scorer
from project.samplers.base import Sampler
from project.tasks.base import Task
from project.trajectory import Prompt, SampleKey


class EvaluatedModule(LightningModule):
    """A module with a policy that benchmark callbacks can measure.

    `updates` counts finished updates; it drives logging, validation and checkpoints.

    Args:
        evaluation_task: how validation draws; or the task of each benchmark that has prompts of its own, by its name.
        evaluation_sampler: how its pictures are denoised.
    """

    def __init__(self, evaluation_task: Task | Mapping[str, Task] | None, evaluation_sampler: Sampler | None) -> None:
        super().__init__()
        self.evaluation_task = evaluation_task
        self.evaluation_sampler = evaluation_sampler
        self.policy: UnifiedModel | None = None
        self.updates = 0
        self.scorer: Scorer | None = None

    @property
    def model(self) -> UnifiedModel:
        """The policy. Raises RuntimeError before `configure_model` ran."""
        if self.policy is None:
            raise RuntimeError("the policy is not loaded yet: configure_model has not run")
        return self.policy

    @property
    def rewards(self) -> list[Reward]:
        """The reward callbacks of the run."""
        return [c for c in self.trainer.callbacks if isinstance(c, Reward)]  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Raises ValueError unless data, benchmarks and tasks name the same benchmarks; and what a task raises for
        prompts that it cannot draw."""
        kind = {"fit": "val", "validate": "val"}.get(stage, stage)
        self._check_names(kind)
        evaluated = evaluated_prompts(self.trainer) if stage == "fit" else self._prompts(kind)
        for task, prompts in groupby(evaluated if self.evaluation_task is not None else (), self._task):
            task.check([*prompts])

    def _prompts(self, kind: str) -> Sequence[Prompt]:
        """Those of the data module, of a kind."""
        return getattr(getattr(self.trainer, "datamodule", None), "prompts", {}).get(kind, ())

    def _check_names(self, kind: str) -> None:
        files = getattr(getattr(self.trainer, "datamodule", None), "files", {}).get(kind)
        if not isinstance(files, Mapping):
            return
        tasks = self.evaluation_task
        if isinstance(tasks, Mapping) and set(tasks) != set(files):
            raise ValueError(
                f"model.init_args.evaluation_task is for {', '.join(tasks)}, data.init_args.{kind} for "
                f"{', '.join(files)}: name the same benchmarks in both"
            )
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        measuring = [callback.name for callback in callbacks if isinstance(callback, Benchmark)]
        if unmeasured := [name for name in files if name not in measuring]:
            raise ValueError(
                f"data.init_args.{kind} has prompts for {unmeasured[0]!r}, but the benchmarks of this run are "
                f"{', '.join(measuring) or 'none'}: add it to `benchmarks:`, or correct the name"
            )

    def _evaluation_tasks(self) -> list[Task]:
        """The tasks that will draw for evaluations during training."""
        tasks = self.evaluation_task if evaluated_prompts(self.trainer) else None
        return [*tasks.values()] if isinstance(tasks, Mapping) else [tasks] if tasks is not None else []

    def _task(self, prompt: Prompt) -> Task:
        tasks = self.evaluation_task
        if not isinstance(tasks, Mapping):
            assert tasks is not None
            return tasks
        name = str(prompt.columns.get(BENCHMARK, "no benchmark in particular"))
        if name not in tasks:
            raise ValueError(
                f"model.init_args.evaluation_task has a task for {', '.join(tasks)}, but prompt {prompt.id!r} is for "
                f"{name}: give the data module a file for each benchmark, by its name"
            )
        return tasks[name]

    def validation_step(self, prompts: Sequence[Prompt], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Trajectories for the benchmark callbacks; their noise depends on the prompt alone.

        Several groups where the task refines: the first pictures, then those of every round.
        """
        if self.evaluation_task is None or self.evaluation_sampler is None:
            raise ValueError("evaluation needs model.init_args.evaluation_task and evaluation_sampler")
        task = self._task(prompts[0])
        keys = [SampleKey(seed=0, update=-1, prompt=prompt.id) for prompt in prompts]
        score = Scorer(self.rewards) if task.evaluates_with_scores and self.rewards else None
        groups = task.rollout(self.model, prompts, keys, self.evaluation_sampler, range(0), Stopwatch(), score)
        return {"group": groups[0], "groups": tuple(groups)}

    test_step = validation_step
    predict_step = validation_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable parameters only, and the counter that all randomness hangs on."""
        names = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in names}
        checkpoint["updates"] = self.updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError if the checkpoint holds parameters that the policy has not.

        Loading is not strict, because frozen parameters are in no checkpoint: what does not fit would be left out
        silently, and the scores of other weights would bear this checkpoint's name.
        """
        known = {name for name, _ in self.named_parameters()}
        # A sharded checkpoint is read by the strategy, and holds no tensors here.
        unknown = [name for name in checkpoint.get("state_dict", {}) if name not in known]
        if unknown:
            raise ValueError(
                f"the checkpoint does not fit the policy of this configuration: it holds {len(unknown)} parameters "
                f"that the policy has not ({', '.join(unknown[:3])}, ...): take the config.yaml of the checkpoint's "
                "run, or its model.init_args.policy and model.init_args.lora"
            )
        self.updates = checkpoint["updates"]
