"""How the policy of a training is measured: one trajectory per evaluation prompt, always with the same noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from lightning import LightningModule
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from project.benchmarks.base import Benchmark
from project.datamodule import PromptSource, evaluated_prompts
from project.models.base import UnifiedModel
from project.models.weight_files import finite, misfits
from project.rewards.base import Reward
from project.rewards.scoring import Scorer
from project.samplers.sampler import Sampler
from project.tasks.base import EvaluationTask, Rollout
from project.training.evaluation import Evaluation
from project.training.sharding import gathered, shard
from project.training.strategies import check_strategy, lengthen_timeout, processes
from project.trajectory import Prompt, SampleKey


def _ranks_of_adapters(checkpoint: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """What is said of adapters of another rank; otherwise ""."""
    for name, tensor in checkpoint["state_dict"].items():
        if ".lora_A." in name and name in known and len(tensor) != len(known[name]):
            return f" (adapters of rank {len(tensor)} there, of rank {len(known[name])} here)"
    return ""


class EvaluatedModule(LightningModule):
    """A module with a policy that benchmark callbacks can measure.

    `updates` counts finished updates; it drives logging, validation and checkpoints.

    Args:
        evaluation: how validation draws; if None, the module cannot be measured.
    """

    elsewhere: ClassVar[str] = (
        "weights, optimizer, schedule and order of the prompts go on; sums are added in another order, so results are "
        "equal but for rounding, not to the last digit"
    )
    """What is exact, and what is not, in a run that goes on with another number of ranks or another strategy."""

    def __init__(self, evaluation: Evaluation | None) -> None:
        super().__init__()
        self.evaluation = evaluation
        self.policy: UnifiedModel | None = None
        self._tasks: dict[str | None, EvaluationTask] = {}
        self.updates = 0
        self.scorer: Scorer | None = None

    @property
    def model(self) -> UnifiedModel:
        """The policy. Raises RuntimeError before `configure_model` ran."""
        if self.policy is None:
            raise RuntimeError("the policy is not loaded yet: configure_model has not run")
        return self.policy

    def share_out(self, *models: UnifiedModel) -> None:
        """Shares out the weights of models over the ranks, if the strategy does that (`fsdp2`)."""
        mesh = self.device_mesh
        for model in models:
            shard(model, None if mesh is None else mesh["data_parallel"])

    @property
    def rewards(self) -> list[Reward]:
        """The reward callbacks of the run."""
        return [c for c in self.trainer.callbacks if isinstance(c, Reward)]  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Raises ValueError for a strategy that does not train here, unless data, benchmarks and tasks name the same
        benchmarks, and for an evaluation that nothing measures; and what a task raises for prompts that it cannot
        draw."""
        check_strategy(self.trainer.strategy)
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        lengthen_timeout(self.trainer.strategy, sum(getattr(callback, "longest_wait", 0.0) for callback in callbacks))
        kind = {"fit": "val", "validate": "val"}.get(stage, stage)
        self._check_names(kind)
        averaging = any(hasattr(callback, "evaluated") for callback in callbacks)
        if self.evaluation is not None and self.evaluation.weights == "ema" and not averaging:
            raise ValueError(
                "model.init_args.evaluation.weights is ema, but no callback averages weights: name "
                "project.callbacks.EMA under trainer.callbacks, or take raw"
            )
        evaluated = evaluated_prompts(self.trainer) if stage == "fit" else self._prompts(kind)
        if kind in ("val", "test") and (evaluated or stage != "fit"):
            self._check_measured(stage, kind, evaluated)
        if self.evaluation is not None:
            for task, group in groupby(evaluated, self.task_of):
                prompts = [*group]
                task.check(prompts)
                if task.evaluates_with_scores:
                    self._check_scores(prompts)

    def task_of(self, prompt: Prompt) -> EvaluationTask:
        """The task that draws a prompt of an evaluation, as the evaluation and the prompt's benchmark want it.

        Raises ValueError without an evaluation, and what `Evaluation.task_of` raises.
        """
        if self.evaluation is None:
            raise ValueError("evaluation needs model.init_args.evaluation: give its task and its schedule")
        if prompt.benchmark not in self._tasks:
            benchmark = next((b for b in self._benchmarks if b.name == prompt.benchmark), None)
            self._tasks[prompt.benchmark] = self.evaluation.finished(self.evaluation.task_of(prompt), benchmark)
        return self._tasks[prompt.benchmark]

    @property
    def _benchmarks(self) -> list[Benchmark]:
        callbacks: list[Callback] = self._trainer.callbacks if self._trainer else []  # type: ignore[attr-defined]
        return [callback for callback in callbacks if isinstance(callback, Benchmark)]

    def _prompts(self, kind: str) -> Sequence[Prompt]:
        """Those of the data module, of a kind."""
        prompts = getattr(getattr(self.trainer, "datamodule", None), "prompts", None)
        return prompts.get(kind, ()) if isinstance(prompts, Mapping) else ()

    def _check_names(self, kind: str) -> None:
        files = getattr(getattr(self.trainer, "datamodule", None), "files", {}).get(kind)
        if not isinstance(files, Mapping):
            return
        tasks = None if self.evaluation is None else self.evaluation.task
        measuring = [benchmark.name for benchmark in self._benchmarks]
        own = [benchmark.name for benchmark in self._benchmarks if isinstance(benchmark, PromptSource)]
        if isinstance(tasks, Mapping) and set(tasks) != {*files, *own}:
            raise ValueError(
                f"model.init_args.evaluation.task is for {', '.join(tasks)}, data.init_args.{kind} for "
                f"{', '.join([*files, *own])}: name the same benchmarks in both"
            )
        if unmeasured := [name for name in files if name not in measuring]:
            raise ValueError(
                f"data.init_args.{kind} has prompts for {unmeasured[0]!r}, but the benchmarks of this run are "
                f"{', '.join(measuring) or 'none'}: add it to `benchmarks:`, or correct the name"
            )

    def _check_scores(self, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError if the rewards, which choose pictures in this evaluation, cannot score them."""
        if not self.rewards:
            raise ValueError("the evaluation chooses pictures by their rewards: name a reward under `rewards:`")
        for reward in self.rewards:
            reward.check(prompts)
            reward.preflight()

    def _check_measured(self, stage: str, kind: str, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError if nobody looks at what an evaluation draws: at full size it takes hours."""
        blind = (ProgressBar, PromptSource) if any(prompt.benchmark is None for prompt in prompts) else ProgressBar
        hook = {"val": "on_validation_batch_end", "test": "on_test_batch_end"}[kind]
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        looking = (c for c in callbacks if getattr(type(c), hook) is not getattr(Callback, hook))
        if all(isinstance(callback, blind) for callback in looking):
            command = TrainerFn(stage).value
            without = f", or leave data.init_args.{kind} out" if command == "fit" or blind != ProgressBar else ""
            raise ValueError(
                f"`{command}` would draw the prompts of data.init_args.{kind}, but nothing is measured: name a "
                f"benchmark under `benchmarks:`, e.g. project.benchmarks.MeanReward{without}"
            )

    def _evaluation_tasks(self) -> list[EvaluationTask]:
        """The tasks that will draw for evaluations during training."""
        return self.evaluation.tasks if self.evaluation is not None and evaluated_prompts(self.trainer) else []

    def _check_trained(self, checkpoint: Mapping[str, Any], known: Mapping[str, Any], file: Path) -> None:
        """Raises ValueError unless the checkpoint's parameters are those that are trained here."""
        other = {name for name, p in known.items() if p.requires_grad} ^ set(checkpoint["state_dict"])
        if other:
            raise ValueError(
                f"{file} and this configuration train different parameters ({len(other)}, e.g. {min(other)}): go on "
                "with the same model.init_args.trainable (lora, freeze)"
            )

    def validation_step(self, prompts: Sequence[Prompt], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Trajectories for the benchmark callbacks; their noise depends on the prompt alone.

        A task that refines gives several groups: the first pictures, then those of every round.
        """
        if not prompts:  # all was drawn by an earlier run
            return {"groups": ()}
        task = self.task_of(prompts[0])
        assert self.evaluation is not None
        rollout = Rollout(
            model=self.model,
            prompts=prompts,
            keys=[SampleKey(seed=self.evaluation.seed, update=-1, prompt=prompt.id) for prompt in prompts],
            sampler=Sampler(schedule=self.evaluation.schedule),
            training=False,
            score=Scorer(self.rewards) if task.evaluates_with_scores and self.rewards else None,
        )
        with gathered(self.model):
            groups = task.rollout(rollout)
        return {"group": groups[0], "groups": tuple(groups)}

    test_step = validation_step
    predict_step = validation_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only the trainable parameters, and the counter on which all random numbers depend."""
        names = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in names}
        checkpoint["updates"] = self.updates
        checkpoint["processes"] = processes(self.trainer.strategy, self.trainer.world_size)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError if the checkpoint holds parameters that the policy does not have, or that are not finite,
        or of other shapes; in training also if it holds others than those that are trained.

        Loading is not strict, because checkpoints hold no frozen parameters. So a checkpoint of another policy would be
        left out silently, and its name would stand beside the scores of other weights.
        """
        known = dict(self.named_parameters())
        unknown = [name for name in checkpoint["state_dict"] if name not in known]
        if unknown:
            raise ValueError(
                f"the checkpoint does not fit the policy of this configuration: it holds {len(unknown)} parameters "
                f"that the policy has not ({', '.join(unknown[:3])}, ...): take the config.yaml of the checkpoint's "
                "run, or its model.init_args.policy and model.init_args.trainable"
            )
        file = Path((self._trainer and self._trainer.ckpt_path) or "the checkpoint")
        if faults := misfits({name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}, known):
            raise ValueError(
                f"{file} does not fit the policy of this configuration{_ranks_of_adapters(checkpoint, known)}: "
                f"{len(faults)} parameters differ, e.g. {faults[0]}: take the config.yaml of the checkpoint's run, or "
                "its model.init_args.policy and model.init_args.trainable"
            )
        if self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            self._check_trained(checkpoint, known, file)
        for name, tensor in checkpoint["state_dict"].items():
            finite(name, tensor, file)
        self.updates = checkpoint["updates"]
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            before, now = checkpoint.get("processes"), processes(self.trainer.strategy, self.trainer.world_size)
            if before not in (None, now):
                rank_zero_info(f"goes on:  with {now}; the checkpoint is of {before}: {self.elsewhere}")
