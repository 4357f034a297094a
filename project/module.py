"""AlphaGRPO: one training step is a rollout, its scores, its advantages, and the update they give."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from project.benchmarks.base import Benchmark
from project.core.metrics import values
from project.core.ranks import ALONE, Ranks
from project.core.timing import Stopwatch, free_unused_memory
from project.models.base import ModelSource, UnifiedModel
from project.models.lora import keep_start
from project.objectives.base import Counts, LossInputs, Objective
from project.rewards.scoring import Scorer
from project.samplers.sampler import Sampler
from project.tasks.base import Rollout, Task
from project.tasks.parts import ReplayPart
from project.training.advantages import advantages, level
from project.training.evaluated import EvaluatedModule
from project.training.evaluation import Evaluation
from project.training.fitting import check_dealt, check_fit
from project.training.gradients import average_over_ranks
from project.training.greedy import baselines, scored, with_greedy
from project.training.lr_schedules import over_whole_run
from project.training.reference import Reference
from project.training.rollout_policy import RolloutPolicy
from project.training.settings import AdvantageSettings, UpdateSettings
from project.training.sharding import gathered
from project.training.skipping import ALL_EQUAL, MOST_NOT_FINITE, NO_REWARDS, NOT_FINITE
from project.training.tally import Tally
from project.training.trainable import Trainable, optimizer_over, prepare
from project.trajectory import Group, MicroBatch, Prompt, Replay, sample_keys

log = logging.getLogger(__name__)


class AlphaGRPO(EvaluatedModule):
    """Trains reasoning text and image of a unified multimodal model together.

    Args:
        policy: the model to train.
        task: what is generated, and in which order.
        sampler: how pictures are denoised: schedule, stochastic transition, window of trained steps.
        objective: the loss.
        optimizer: optimizer of the trainable parameters (which are fp32).
        lr_scheduler: learning rates over the run, stepped after every optimizer step; constant rates if None.
        trainable: what is trained: adapters or all weights, and which of them stay as they are.
        reference: model that the KL terms keep the policy near: the `base` model without adapters, or the model at the
            `start` of training, with `lora.adapter`. Without adapters both are a frozen copy of the loaded model.
        num_generations: G, samples per prompt.
        advantages: how rewards become advantages.
        update: how a rollout becomes optimizer steps.
        overlap: let the judge work in a thread of its own while drawing goes on; for judges on a server.
        seed: seed of every random number of the run.
        evaluation: how validation draws; if None, the task of training with the ODE of its schedule.
    """

    def __init__(
        self,
        policy: ModelSource,
        task: Task,
        sampler: Sampler,
        objective: Objective,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        trainable: Trainable = Trainable(),
        reference: Literal["base", "start"] = "base",
        num_generations: int = 8,
        advantages: AdvantageSettings = AdvantageSettings(),
        update: UpdateSettings = UpdateSettings(),
        overlap: bool = False,
        seed: int = 0,
        evaluation: Evaluation | None = None,
    ) -> None:
        super().__init__(evaluation or Evaluation(task=task, schedule=sampler.schedule))
        check_fit(task, sampler, objective, num_generations, advantages, update)
        self.automatic_optimization = False
        self.strict_loading = False
        self.policy_source = policy
        self.task = task
        self.sampler = sampler
        self.objective = objective
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        self.trainable = trainable
        self.reference = reference
        self.num_generations = num_generations
        self.comparison = advantages
        self.updating = update
        self.overlap = overlap
        self.seed = seed
        self.stopwatch = Stopwatch()
        self._skipped = 0
        self.gave_up = ""
        """Why training stopped before its end; empty if it did not."""
        self._reference = Reference(adapters=reference)
        self._rollout_policy = RolloutPolicy()

    # ----------------------------------------------------------------- the algorithm

    def training_step(self, prompts: Sequence[Prompt], batch_idx: int) -> dict[str, Any]:
        """One rollout and the optimizer steps on it."""
        groups = self.rollout(prompts)
        free_unused_memory()
        groups = [self.score(group) for group in groups]
        groups = self.task.credit(groups, self.ranks)
        groups = [self.advantages(group) for group in groups]
        for step in range(self.updating.per_rollout):
            self.update(groups, first=step == 0)
        self.updates += 1
        self.log_dict({f"time/{name}": s for name, s in self.stopwatch.reset().items()})
        self.log_dict({f"memory/{name}": gb for name, gb in self.stopwatch.memory().items()})
        if self.scorer is not None:
            self.log("judge/seconds", self.scorer.busy())
        return {"group": groups[-1], "groups": tuple(groups)}

    def rollout(self, prompts: Sequence[Prompt]) -> list[Group]:
        """G trajectories of each prompt by the rollout's policy, in a group for each task and round.

        All samples of the update are dealt to the ranks, whatever their number: this rank's are returned.
        """
        self._rollout_policy.remember(self.model, self.updates)
        with self._rollout_policy.drawing(self.model) as policy, gathered(policy):
            rollout = Rollout(
                model=policy,
                prompts=prompts,
                keys=sample_keys(prompts, self.num_generations, seed=self.seed, update=self.updates),
                sampler=self.sampler,
                training=True,
                stochastic=True,
                score=self.scorer,
                stopwatch=self.stopwatch,
                keep_means=self.objective.needs.rollout_means,
                ranks=self.ranks,
            )
            groups = self.task.rollout(rollout)
            return with_greedy(groups, self.task, rollout) if self.comparison.baseline == "greedy" else groups

    def score(self, group: Group) -> Group:
        """The rewards of a group; the reward callbacks were asked as soon as its pictures were drawn."""
        assert self.scorer is not None
        scores = self.scorer.collect(group)
        self.log_dict({f"{group.log_prefix}{name}": value for name, value in values(scores.metrics).items()})
        self.log("reward", scores.reward_N.nanmean(), prog_bar=True, logger=False)
        greedy = scored(group.greedy, self.scorer)
        return dataclasses.replace(group, scores=scores, greedy=greedy, pending=(), metrics={})

    def advantages(self, group: Group) -> Group:
        """How much better each sample is than its group, of which other ranks may have a part."""
        assert group.scores is not None
        context_N = group.context_N if self.comparison.image_baseline == "context" else None
        reward_N, text_reward_N, given_N, context_N, well_formed_N = self.ranks.whole(
            *group.scores.to_compare, group.scores.reward_N, context_N, group.scores.well_formed_N
        )
        assert reward_N is not None and text_reward_N is not None and given_N is not None
        baseline_P, text_baseline_P = baselines(group, self.ranks)
        better = advantages(
            reward_N,
            text_reward_N,
            group.size,
            scale=self.comparison.scale_rewards,
            clip=self.comparison.clip,
            eps=self.comparison.scale_floor,
            image_context_N=context_N,
            image_mask_N=well_formed_N,
            baseline_P=baseline_P,
            text_baseline_P=text_baseline_P,
        )
        metrics = {**better.metrics, **level(given_N, better.valid_N), **values(group.metrics)}
        self.log_dict({f"{group.log_prefix}{name}": value for name, value in metrics.items()})
        return dataclasses.replace(group, advantages=better.of(self.ranks.share(len(reward_N))))

    def replay(self, batch: MicroBatch, first: bool = True) -> Replay:
        """Log-probabilities of a micro-batch under the present weights, and under the reference if it is needed."""
        with self.stopwatch.phase("replay"):
            replay = self._replay(self.model, batch)
        if self._rollout_policy.kept and not first:
            with self.stopwatch.phase("rollout_policy"):
                of_rollout = self._rollout_policy.velocity(self.model, lambda policy: self._replay(policy, batch))
            replay = dataclasses.replace(replay, old_velocity=of_rollout)
        if not self.objective.needs.reference:
            return replay
        with self.stopwatch.phase("reference"):
            reference = self._reference.replay(self.model, lambda policy: self._replay(policy, batch))
        return dataclasses.replace(replay, reference=reference)

    def replays(self, batch: MicroBatch, first: bool = True) -> Iterator[ReplayPart]:
        """The replay of a micro-batch: whole, or in the parts that `update.steps_per_backward` asks for."""
        if self.updating.steps_per_backward is None:
            yield ReplayPart(replay=self.replay(batch, first), whole=True)
            return
        parts, of_reference = self._parts(self.model, batch), None
        while True:
            with self.stopwatch.phase("replay"):
                part = next(parts, None)
            if part is None:
                return
            if self.objective.needs.reference:
                with self.stopwatch.phase("reference"), torch.no_grad(), self._reference.of(self.model) as policy:
                    of_reference = of_reference or self._parts(policy, batch)
                    reference = next(of_reference).replay
                part = dataclasses.replace(part, replay=dataclasses.replace(part.replay, reference=reference))
            yield part

    def update(self, groups: Sequence[Group], first: bool) -> None:
        """One optimizer step on all groups; micro-batches only accumulate.

        The step is skipped if no sample of any rank survived; if every advantage is zero, because the optimizer's
        momentum would move the weights all the same; and if the gradient is not finite, because it would make every
        weight NaN, also in the next `last.ckpt`.
        """
        first = first and self.updating.on_policy(self.updates)
        tasks: dict[str, list[Group]] = defaultdict(list)
        for group in groups:
            tasks[group.task].append(group)
        counts = {
            task: self.objective.count(some, world_size=self.ranks.size, reduce=self.ranks.sum)
            for task, some in tasks.items()
        }
        if not any(count.samples for count in counts.values()):
            self._skip(NO_REWARDS, self.updating.max_skipped)
            return
        if not self.ranks.any(any(group.teaches for group in groups)):
            self._skip(ALL_EQUAL, self.updating.max_skipped)
            return
        optimizer = self.optimizers(use_pl_optimizer=True)
        assert not isinstance(optimizer, list)
        optimizer.zero_grad()
        metrics, maxima = self._accumulate(groups, counts, first).over(self.ranks)
        with self.stopwatch.phase("optimizer"):
            if isinstance(self.trainer.model, DistributedDataParallel):
                average_over_ranks(self.trained)
            norm = nn.utils.clip_grad_norm_(self.trained, self.updating.gradient_clip)
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
            if self.ranks.any(not bool(norm.isfinite())):
                self._skip(NOT_FINITE, min(MOST_NOT_FINITE, self.updating.max_skipped))
                return
            optimizer.step()
            if isinstance(scheduler := self.lr_schedulers(), LRScheduler):
                scheduler.step()
        self.log("update/skipped", 0.0)
        self._skipped = 0
        if first:
            self.log_dict({f"on_policy/{name}": value for name, value in maxima.items()})
        self.log_dict({name: mean.value for name, mean in metrics.items() if mean.count})
        self.log("grad_norm", norm)

    def _skip(self, reason: str, most: int) -> None:
        """Log an update without a step. Too many in a row stop the run; `max_steps` counts only real steps."""
        self.log("update/skipped", 1.0)
        self._skipped += 1
        log.warning("update %d is skipped: %s", self.updates, reason)
        if self._skipped >= most:
            self.gave_up = f"{self._skipped} updates in a row were skipped, the last one because {reason}"
            log.error("%d updates in a row were skipped: the run stops, saved", self._skipped)
            self.trainer.should_stop = True

    def _accumulate(self, groups: Sequence[Group], counts: Mapping[str, Counts], first: bool) -> Tally:
        """Accumulate the gradient of the update's loss, and return what to log.

        Every rank replays as many micro-batches of a group as the rank with most of them, so that collectives match.
        """
        of_ranks = self.ranks.gather([self._micro_batches(group) for group in groups])
        numbers = [max(column) for column in zip(*of_ranks, strict=True)]
        tally = Tally()
        for group, number in zip(groups, numbers, strict=True):
            for batch in group.micro_batches(self.updating.micro_batch_size, at_least=number):
                for part in self.replays(batch, first):
                    outputs = self.objective(
                        LossInputs(
                            replay=part.replay,
                            image_advantage_B=batch.image_advantage_B.to(self.device),
                            text_advantage_B=batch.text_advantage_B.to(self.device),
                            counts=counts[group.task],
                            text_weight=batch.text_weight,
                            first=first,
                            keys=[trajectory.key for trajectory in batch.trajectories],
                            round=group.round,
                        )
                    )
                    loss = part.complete(outputs.loss * batch.weight)
                    with self.stopwatch.phase("backward"), self._gradients_stay():
                        if part.whole or loss.requires_grad:  # a part may hold only what is frozen
                            self.manual_backward(loss)
                    tally.add(outputs, group.log_prefix, batch.weight)
        return tally

    # ----------------------------------------------------------------- set-up

    def configure_model(self) -> None:
        """Load the policy (once), add adapters, freeze what is not trained."""
        if self.policy is not None:
            return
        policy = self.policy_source.load()
        lora, needed = self.trainable.lora, self.objective.needs.reference
        if needed and lora is None:
            self._reference = Reference(frozen=copy.deepcopy(policy).requires_grad_(False).eval())
        self.policy = prepare(policy, lora, self.trainable.freeze)
        if needed and lora is not None and self.reference == "start":
            keep_start(self.policy)
        if self.objective.needs.old_velocity and self.updating.keeps_rollout_policy:
            self._rollout_policy = RolloutPolicy(self.policy, self.updating.rollout_average)
        beside = (self._reference.frozen, *self._rollout_policy.models)
        self.share_out(self.policy, *(model for model in beside if model is not None))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer, with a parameter group for each pattern that has options of its own."""
        optimizer = optimizer_over(self, self.make_optimizer, self.trainable.parameter_groups)
        if self.make_scheduler is None:
            return optimizer
        scheduler = over_whole_run(self.make_scheduler(optimizer), self.trainer.max_steps)  # type: ignore[arg-type]
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        prompts = getattr(getattr(self.trainer, "datamodule", None), "prompts_per_update", self.ranks.size)
        check_dealt(prompts, self.num_generations, self.ranks.size)
        self.task.check(self._prompts("train"))

    def on_fit_start(self) -> None:
        """Check before training that the rewards can work on these prompts."""
        self.scorer = Scorer(
            self.rewards, self.overlap, self.stopwatch, self.ranks, skip_stopped=True, floor=self.comparison.floor
        )
        if not self.rewards:
            raise ValueError("no reward: name at least one under `rewards:`, e.g. project.rewards.DVReward")
        for turn in (turn for task in (self.task, *self._evaluation_tasks()) for turn in task.turns):
            self.model.latent_grid(turn.canvas.height, turn.canvas.width)  # raises for pictures that cannot be drawn
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        asking = [c for c in callbacks if isinstance(c, Benchmark) and c.reward is None and c.of_pictures]
        evaluated = [prompt for benchmark in asking for prompt in benchmark.prompts(self.trainer)]
        for reward in self.rewards:
            reward.check([*self._prompts("train"), *evaluated])
            reward.preflight()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also the average of past policies, if rollouts are drawn by one."""
        super().on_save_checkpoint(checkpoint)
        checkpoint |= self._rollout_policy.state(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError if the checkpoint holds other parameters than the policy; see `EvaluatedModule`."""
        super().on_load_checkpoint(checkpoint)
        self._rollout_policy.load(self.model, checkpoint)

    def on_fit_end(self) -> None:
        if self.scorer is not None:
            self.scorer.close()

    # ----------------------------------------------------------------- helpers

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        if self._trainer is None:
            return ALONE
        return Ranks(rank=self.trainer.global_rank, size=self.trainer.world_size)

    @property
    def trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _micro_batches(self, group: Group) -> int:
        """How many this rank has work for."""
        return sum(1 for _ in group.micro_batches(self.updating.micro_batch_size))

    def _gradients_stay(self) -> AbstractContextManager[Any]:
        """Gradients are kept on their ranks, and averaged once an update."""
        wrapper = self.trainer.model
        return wrapper.no_sync() if isinstance(wrapper, DistributedDataParallel) else nullcontext()

    def _parts(self, model: UnifiedModel, batch: MicroBatch) -> Iterator[ReplayPart]:
        steps = self.updating.steps_per_backward
        assert steps is not None
        return self.task.replay_parts(
            model, batch.trajectories, self.sampler, context_gradient=self.updating.context_gradient, steps=steps
        )

    def _replay(self, model: UnifiedModel, batch: MicroBatch) -> Replay:
        return self.task.replay(
            model, batch.trajectories, self.sampler, context_gradient=self.updating.context_gradient
        )
