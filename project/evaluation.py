"""How any training of a policy is measured: one trajectory per evaluation prompt, always with the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import LightningModule

from project.models.base import UnifiedModel
from project.rewards.base import Reward
from project.samplers.base import Sampler
from project.scoring import Scorer
from project.tasks.base import Task
from project.timing import Stopwatch
from project.trajectory import Prompt, SampleKey


class EvaluatedModule(LightningModule):
    """A module with a policy that benchmark callbacks can measure.

    `updates` counts finished updates; it drives logging, validation and checkpoints.
    """

    def __init__(self, evaluation_task: Task | None, evaluation_sampler: Sampler | None) -> None:
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

    def validation_step(self, prompts: Sequence[Prompt], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Trajectories for the benchmark callbacks; their noise depends on the prompt alone.

        Several groups where the task refines: the first pictures, then those of every round.
        """
        if self.evaluation_task is None or self.evaluation_sampler is None:
            raise ValueError("evaluation needs model.init_args.evaluation_task and evaluation_sampler")
        keys = [SampleKey(seed=0, update=-1, prompt=prompt.id) for prompt in prompts]
        score = Scorer(self.rewards) if self.evaluation_task.evaluates_with_scores and self.rewards else None
        groups = self.evaluation_task.rollout(
            self.model, prompts, keys, self.evaluation_sampler, range(0), Stopwatch(), score
        )
        return {"group": groups[0], "groups": tuple(groups)}

    test_step = validation_step
    predict_step = validation_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable parameters only, and the counter that all randomness hangs on."""
        names = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in names}
        checkpoint["updates"] = self.updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.updates = checkpoint["updates"]
