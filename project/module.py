"""AlphaGRPO: one training step is a rollout, its scores, its advantages, and the update they give."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from project.benchmarks.base import Benchmark
from project.core.metrics import Mean, values
from project.core.timing import Stopwatch
from project.judges.agreement import together
from project.models.base import ModelSource, UnifiedModel
from project.models.lora import LoRA, adapters_at_start, adapters_off, keep_start
from project.objectives.base import Counts, LossInputs, Objective
from project.rewards.scoring import Scorer, collected
from project.samplers.base import Sampler
from project.tasks.base import Task
from project.training.advantages import advantages
from project.training.evaluated import EvaluatedModule
from project.training.lr_schedules import over_whole_run
from project.training.trainable import optimizer_over, prepare
from project.trajectory import Group, MicroBatch, Prompt, Replay, SampleKey

NO_REWARDS = (
    "no group has two samples with a reward, look at judge/unanswered, reward/dropped_groups and srr/1/skipped "
    "(model.init_args.max_skipped sets how many such updates in a row are borne)"
)
NOT_FINITE = "its gradient is not finite, look at the rewards, the learning rate and the precision"
MOST_NOT_FINITE = 3
"""Updates in a row without a finite gradient after which the run stops: the next would not be better."""

log = logging.getLogger(__name__)


class AlphaGRPO(EvaluatedModule):
    """Trains reasoning text and image of a unified multimodal model together.

    Args:
        policy: the model to train.
        task: what is generated, in which order.
        sampler: the stochastic transition and its window of trained steps.
        objective: the loss.
        optimizer: made over the trainable parameters (which are fp32).
        lr_scheduler: stepped after every optimizer step; constant rates if None.
        lora: adapters to train instead of all weights.
        reference: what the KL terms hold the policy to: the `base` model without adapters, or the model as it was at
            the `start` of training, with `lora.adapter`. Without adapters both are a frozen copy of the loaded model.
        num_generations: G, samples per prompt.
        updates_per_rollout: optimizer steps per rollout. With 1 every ratio is 1 by construction: the gradient is
            the policy gradient, and clipping only ever sees numerical noise.
        micro_batch_size: samples per backward; changes memory and speed, never the gradient.
        scale_rewards: standard deviation that advantages are divided by: of all samples, of the group, or none.
        image_baseline: what a picture is compared with: its `group`, or those of the group that were drawn from the
            same `context` (text and source picture), for models whose texts repeat or with `images_per_text`.
        scale_floor: added to that standard deviation: rewards that differ by less teach in proportion.
        advantage_clip: largest image advantage.
        gradient_clip: largest norm of the gradient.
        overlap: judge in a thread of its own while drawing goes on; for judges that work elsewhere (a server).
        max_skipped: updates in a row without anything to learn from after which the run stops (see `MOST_NOT_FINITE`).
        context_gradient: let the image loss reach the reasoning's states (exact), or cut it there (the paper).
        freeze: patterns of parameter names (re.search) that stay as they are.
        parameter_groups: options of the optimizer (lr, eps, weight_decay ...) of their own for the parameters whose
            name matches a pattern (re.search); the first match counts.
        seed: of every draw of the run.
        evaluation_task, evaluation_sampler: how validation draws, see EvaluatedModule; as in training if None.
    """

    def __init__(
        self,
        policy: ModelSource,
        task: Task,
        sampler: Sampler,
        objective: Objective,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lora: LoRA | None = None,
        reference: Literal["base", "start"] = "base",
        num_generations: int = 8,
        updates_per_rollout: int = 1,
        micro_batch_size: int = 8,
        scale_rewards: Literal["global", "group", "none"] = "global",
        image_baseline: Literal["group", "context"] = "group",
        scale_floor: float = 1e-4,
        advantage_clip: float = 5.0,
        gradient_clip: float = 1.0,
        overlap: bool = False,
        max_skipped: int = 100,
        context_gradient: bool = True,
        freeze: Sequence[str] = (),
        parameter_groups: Mapping[str, dict[str, Any]] | None = None,
        seed: int = 0,
        evaluation_task: Task | dict[str, Task] | None = None,
        evaluation_sampler: Sampler | None = None,
    ) -> None:
        super().__init__(evaluation_task or task, evaluation_sampler or sampler)
        if num_generations < 2:
            raise ValueError(
                f"num_generations={num_generations}: an advantage compares samples of one prompt, "
                "set model.init_args.num_generations to 2 or more"
            )
        if lora is not None and lora.dropout:
            raise ValueError(
                f"lora.dropout={lora.dropout}: replay would drop other activations than rollout did, and ratios and "
                "gradients would be those of the dropout; set model.init_args.lora.dropout to 0"
            )
        if micro_batch_size < 1 or updates_per_rollout < 1:
            raise ValueError("micro_batch_size and updates_per_rollout must be at least 1")
        if any(turn.think and turn.temperature == 0 for turn in task.turns):
            raise ValueError(
                "temperature=0 is for evaluation: greedy reasoning is the same in every sample, set "
                "model.init_args.task.init_args.temperature above 0 (evaluation_task may have 0)"
            )
        if not sampler.noise_level or not sampler.window_size:
            raise ValueError(
                f"{type(sampler).__name__} with noise_level={sampler.noise_level} and window_size="
                f"{sampler.window_size} draws nothing that could be trained: take project.samplers.flow_sde.FlowSDE "
                "with a positive noise_level as model.init_args.sampler (evaluation_sampler may be deterministic)"
            )
        self.automatic_optimization = False
        self.strict_loading = False
        self.policy_source = policy
        self.task = task
        self.sampler = sampler
        self.objective = objective
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        self.lora = lora
        self.reference = reference
        self.num_generations = num_generations
        self.updates_per_rollout = updates_per_rollout
        self.micro_batch_size = micro_batch_size
        self.scale_rewards = scale_rewards
        self.image_baseline = image_baseline
        self.scale_floor = scale_floor
        self.advantage_clip = advantage_clip
        self.gradient_clip = gradient_clip
        self.overlap = overlap
        self.max_skipped = max_skipped
        self._skipped = 0
        self.context_gradient = context_gradient
        self.freeze_patterns = tuple(freeze)
        self.parameter_groups = dict(parameter_groups or {})
        self.seed = seed
        self.stopwatch = Stopwatch()
        self._reference: tuple[UnifiedModel, ...] = ()  # a tuple: no submodule, so in no checkpoint

    # ----------------------------------------------------------------- the algorithm

    def training_step(self, prompts: Sequence[Prompt], batch_idx: int) -> dict[str, Any]:
        """One rollout and the optimizer steps it gives."""
        with together(self._on_any_rank):  # scoring that fails on one rank ends the run of all
            groups = self.rollout(prompts)
            groups = [self.score(group) for group in groups]
        groups = self.task.credit(groups, self._sum_over_ranks)
        groups = [self.advantages(group) for group in groups]
        for step in range(self.updates_per_rollout):
            self.update(groups, first=step == 0)
        self.updates += 1
        self.log_dict({f"time/{name}": s for name, s in self.stopwatch.reset().items()})
        if self.scorer is not None:
            self.log("judge/seconds", self.scorer.busy())
        return {"group": groups[-1], "groups": tuple(groups)}

    def rollout(self, prompts: Sequence[Prompt]) -> list[Group]:
        """G trajectories of each prompt, under the weights now: a group per task and round."""
        keys = self._keys(prompts, self.num_generations, self.updates)
        window = self.sampler.window(self.seed, self.updates)
        return self.task.rollout(self.model, prompts, keys, self.sampler, window, self.stopwatch, self.scorer)

    def score(self, group: Group) -> Group:
        """Rewards from the reward callbacks, which were asked as soon as the pictures were drawn."""
        scores = collected(group.pending, self.stopwatch)
        self.log_dict({f"{prefix(group)}{name}": value for name, value in values(scores.metrics).items()})
        self.log("reward", scores.reward_N.nanmean(), prog_bar=True, logger=False)
        return dataclasses.replace(group, scores=scores, pending=())

    def advantages(self, group: Group) -> Group:
        """How much better each sample is than its group."""
        assert group.scores is not None
        better = advantages(
            group.scores.reward_N,
            group.scores.text_reward_N,
            group.size,
            scale=self.scale_rewards,
            clip=self.advantage_clip,
            eps=self.scale_floor,
            image_context_N=group.context_N if self.image_baseline == "context" else None,
            image_mask_N=group.scores.well_formed_N,
            reduce=self._sum_over_ranks,
        )
        self.log_dict({f"{prefix(group)}{name}": value for name, value in better.metrics.items()})
        self.log_dict(dict(group.metrics), sync_dist=True)
        return group.with_advantages(better)

    def replay(self, batch: MicroBatch) -> Replay:
        """Log-probabilities of a micro-batch under the weights now, and under the reference if it is needed."""
        with self.stopwatch.phase("replay"):
            replay = self._replay(self.model)(batch)
        if not self.objective.needs_reference:
            return replay
        with self.stopwatch.phase("reference"), torch.no_grad():
            reference = self._reference_replay(batch)
        return dataclasses.replace(
            replay, reference_text_log_prob_RT=reference.text_log_prob_RT, reference_mean_RKLD=reference.mean_RKLD
        )

    def update(self, groups: Sequence[Group], first: bool) -> None:
        """One optimizer step on all groups; micro-batches only accumulate.

        There is no step where no sample of any rank survived, and none along a gradient that is not finite: it would
        make every weight NaN, and the next `last.ckpt` with them.
        """
        tasks: dict[str, list[Group]] = defaultdict(list)
        for group in groups:
            tasks[group.task].append(group)
        counts = {
            task: self.objective.count(some, world_size=self.trainer.world_size, reduce=self._sum_over_ranks)
            for task, some in tasks.items()
        }
        if not any(count.samples for count in counts.values()):
            self._skip(NO_REWARDS, self.max_skipped)
            return
        optimizer = self.optimizers(use_pl_optimizer=True)
        assert not isinstance(optimizer, list)
        optimizer.zero_grad()
        metrics, maxima = self._accumulate(groups, counts)
        with self.stopwatch.phase("optimizer"):
            norm = nn.utils.clip_grad_norm_(self.trainable, self.gradient_clip)
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
            if self._on_any_rank(not bool(norm.isfinite())):
                self._skip(NOT_FINITE, min(MOST_NOT_FINITE, self.max_skipped))
                return
            optimizer.step()
            if isinstance(scheduler := self.lr_schedulers(), LRScheduler):
                scheduler.step()
        self.log("update/skipped", 0.0)
        self._skipped = 0
        if first:
            self.log_dict({f"on_policy/{name}": value for name, value in maxima.items()})
        self.log_dict({name: mean.value for name, mean in metrics.items()})
        self.log("grad_norm", norm)

    def _skip(self, reason: str, most: int) -> None:
        """Note an update without a step; too many in a row end the run, which `max_steps` alone would not."""
        self.log("update/skipped", 1.0)
        self._skipped += 1
        log.warning("update %d is skipped: %s", self.updates, reason)
        if self._skipped >= most:
            log.error("%d updates in a row were skipped: the run stops, saved", self._skipped)
            self.trainer.should_stop = True

    def _accumulate(
        self, groups: Sequence[Group], counts: Mapping[str, Counts]
    ) -> tuple[dict[str, Mean[Tensor]], dict[str, Tensor]]:
        """The gradient of the update's loss, and what to log of it, over all ranks.

        Of every group every rank replays as many micro-batches as the one that has most: collectives then pair up.
        """
        numbers = self._over_ranks(torch.tensor([self._micro_batches(group) for group in groups]), "max").tolist()
        left = sum(numbers)
        totals: dict[str, Mean[Tensor]] = {}
        maxima: dict[str, Tensor] = {}
        for group, number in zip(groups, numbers, strict=True):
            for batch in group.micro_batches(self.micro_batch_size, at_least=number):
                outputs = self.objective(
                    LossInputs(
                        replay=self.replay(batch),
                        image_advantage_B=batch.image_advantage_B.to(self.device),
                        text_advantage_B=batch.text_advantage_B.to(self.device),
                        counts=counts[group.task],
                        text_weight=batch.text_weight,
                    )
                )
                left -= 1
                with self.stopwatch.phase("backward"), self._gradients_stay(left > 0):
                    self.manual_backward(outputs.loss * batch.weight)
                for name, mean in outputs.metrics.items():
                    name, mean = f"{prefix(group)}{name}", mean.times(batch.weight)
                    totals[name] = totals[name] + mean if name in totals else mean
                for name, value in outputs.maxima.items():
                    value = value.detach().cpu() * batch.weight
                    maxima[name] = torch.maximum(maxima[name], value) if name in maxima else value
        if self.trainer.world_size > 1:
            totals = {
                name: Mean(total=self._over_ranks(mean.total, "sum"), count=self._over_ranks(mean.count, "sum"))
                for name, mean in totals.items()
            }
            maxima = {name: self._over_ranks(value, "max") for name, value in maxima.items()}
        return totals, maxima

    def _micro_batches(self, group: Group) -> int:
        """How many this rank has work for."""
        assert group.advantages is not None
        return math.ceil(int(group.advantages.valid_N.sum()) / self.micro_batch_size)

    # ----------------------------------------------------------------- set-up

    def configure_model(self) -> None:
        """Load the policy (once), add adapters, freeze what is to stay."""
        if self.policy is not None:
            return
        policy = self.policy_source.load()
        if self.objective.needs_reference and self.lora is None:
            self._reference = (copy.deepcopy(policy).requires_grad_(False).eval(),)
        self.policy = prepare(policy, self.lora, self.freeze_patterns)
        if self.objective.needs_reference and self.lora is not None and self.reference == "start":
            keep_start(self.policy)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer, with a parameter group per pattern that wants options of its own."""
        optimizer = optimizer_over(self, self.make_optimizer, self.parameter_groups)
        if self.make_scheduler is None:
            return optimizer
        scheduler = over_whole_run(self.make_scheduler(optimizer), self.trainer.max_steps)  # type: ignore[arg-type]
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_fit_start(self) -> None:
        """Find out before hours are spent whether the rewards can work on these prompts."""
        self.scorer = Scorer(self.rewards, self.overlap, self.stopwatch)
        if not self.rewards:
            raise ValueError("no reward: name at least one under `rewards:`, e.g. project.rewards.dvreward.DVReward")
        for turn in (turn for task in (self.task, *self._evaluation_tasks()) for turn in task.turns):
            self.model.latent_grid(turn.canvas.height, turn.canvas.width)  # raises for pictures that cannot be drawn
        prompts = getattr(self.trainer.datamodule, "prompts", {}).get("train", ())  # type: ignore[attr-defined]
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        asking = [c for c in callbacks if isinstance(c, Benchmark) and c.reward is None]
        evaluated = [prompt for benchmark in asking for prompt in benchmark.prompts(self.trainer)]
        for reward in self.rewards:
            reward.check([*prompts, *evaluated])
            reward.preflight()

    def on_fit_end(self) -> None:
        if self.scorer is not None:
            self.scorer.close()

    # ----------------------------------------------------------------- helpers

    @property
    def trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _on_any_rank(self, true: bool) -> bool:
        return self.trainer.strategy.reduce_boolean_decision(true, all=False)

    def _sum_over_ranks(self, tensor: Tensor) -> Tensor:
        return self._over_ranks(tensor, "sum")

    def _over_ranks(self, tensor: Tensor, operation: Literal["sum", "max"]) -> Tensor:
        """On the CPU, of the tensor's dtype."""
        if self.trainer.world_size == 1:
            return tensor
        # A copy: the collective works in place.
        reduced = self.trainer.strategy.reduce(tensor.detach().to(self.device, copy=True), reduce_op=operation)
        return torch.as_tensor(reduced).cpu()

    def _gradients_stay(self, stay: bool) -> AbstractContextManager[Any]:
        """Whether gradients are kept on their ranks for now: they need to be averaged only once an update."""
        wrapper = self.trainer.model
        return wrapper.no_sync() if stay and isinstance(wrapper, DistributedDataParallel) else nullcontext()

    def _keys(self, prompts: Sequence[Prompt], size: int, update: int) -> list[SampleKey]:
        seen: dict[str, int] = defaultdict(int)
        keys = []
        for prompt in prompts:
            occurrence = seen[prompt.id]
            seen[prompt.id] += 1
            keys += [
                SampleKey(seed=self.seed, update=update, prompt=prompt.id, occurrence=occurrence, sample=g)
                for g in range(size)
            ]
        return keys

    def _replay(self, model: UnifiedModel) -> Callable[[MicroBatch], Replay]:
        return lambda batch: self.task.replay(
            model, batch.trajectories, self.sampler, context_gradient=self.context_gradient
        )

    def _reference_replay(self, batch: MicroBatch) -> Replay:
        if self.lora is None:
            return self._replay(self._reference[0].to(self.device))(batch)
        with adapters_off(self.model) if self.reference == "base" else adapters_at_start(self.model):
            return self._replay(self.model)(batch)


def prefix(group: Group) -> str:
    """Of the names of what is logged of a group: none where a task draws pictures from nothing."""
    if not group.task:
        return ""
    round = group.trajectories[0].round
    return f"{group.task}/{round}/" if round else f"{group.task}/"
