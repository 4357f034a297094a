"""What a configuration needs, by the model's outline: no weights are loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from project.models.base import UnifiedModel
from project.models.sizes import Sizes
from project.module import AlphaGRPO
from project.planning.estimates import Arithmetic, Memory, Weights, Workload, flops, largest, memory, seconds
from project.planning.live_bytes import LiveBytes
from project.samplers.sampler import Sampler
from project.tasks.base import Task
from project.tasks.drawing import Canvas
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.self_reflection import SelfReflection
from project.tasks.turn import Turn
from project.training.trainable import prepare

PROBE = 2**16
"""Weights that the optimizer is tried on; 8-bit optimizers keep fewer than 4096 at once in fp32."""
CUDA_CONTEXT = 1.5e9
"""Bytes that kernels and libraries take on a GPU before the first tensor: an estimate."""
RESERVE = 0.1
"""Share of a GPU that is kept free: for fragments, and because activations are estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A configuration as `project.planning.estimates` sees it.

    Attributes:
        decoding_flops: of the autoencoder, for one picture.
        first: the first pictures of refinement, if there are any; their memory is less than that of refining them.
        first_trained: whether these are trained too.
        cuttable: whether micro-batches can be cut over their trained steps.
    """

    work: Workload
    sizes: Sizes
    how: Arithmetic
    weights: Weights
    decoding_flops: float
    first: Workload | None = None
    first_trained: bool = False
    cuttable: bool = False
    ranks: int = 1
    sharded: bool = False

    def memory(self, work: Workload | None = None, checkpointing: bool | None = None) -> Memory:
        """Of the configuration, or with another workload or checkpointing."""
        how = self.how if checkpointing is None else dataclasses.replace(self.how, checkpointing=checkpointing)
        return memory(work or self.work, self.sizes, how, self.weights, self.ranks, self.sharded)

    def flops(self, work: Workload | None = None, checkpointing: bool | None = None) -> dict[str, float]:
        """Operations of the phases of an update, or those with another workload or checkpointing."""
        how = self.how if checkpointing is None else dataclasses.replace(self.how, checkpointing=checkpointing)
        total = self.flops_of(work or self.work, how)
        of_first = {} if self.first is None else self.flops_of(self.first, how)
        for name, count in of_first.items():
            total[name] += count if self.first_trained or name.startswith("rollout") else 0.0
        return total

    def flops_of(self, work: Workload, how: Arithmetic | None = None) -> dict[str, float]:
        """Operations of one workload alone, see `estimates.flops`."""
        return flops(work, self.sizes, how or self.how, self.decoding_flops)

    def seconds(self, speed: float, bandwidth: float) -> dict[str, float]:
        """Seconds of the phases of an update, see `estimates.seconds`."""
        total = self._seconds(self.work, speed, bandwidth)
        if self.first is not None:
            of_first = self._seconds(self.first, speed, bandwidth)
            for name, taken in of_first.items():
                total[name] += taken if self.first_trained or name.startswith("rollout") else 0.0
        return total

    def _seconds(self, work: Workload, speed: float, bandwidth: float) -> dict[str, float]:
        return seconds(work, self.sizes, self.how, self.flops_of(work), speed, bandwidth)

    def largest(self, gpu_bytes: float, checkpointing: bool | None = None) -> Workload | None:
        """The largest micro-batch and number of prompts drawn together that fit; None if nothing does."""
        return self.largest_below(usable(gpu_bytes), checkpointing)

    def largest_below(self, limit: float, checkpointing: bool | None = None) -> Workload | None:
        """The same for a number of bytes that tensors may take."""
        return largest(self.work, lambda work: self.memory(work, checkpointing).peak <= limit, self.cuttable)

    def fastest(self, gpu_bytes: float) -> tuple[Workload, bool] | None:
        """Of the largest that fit with and without checkpointing the one with fewer operations, and whether it has it.

        None if nothing fits.
        """
        found = [(self.largest(gpu_bytes, checkpointing), checkpointing) for checkpointing in (False, True)]
        fitting = [(work, checkpointing) for work, checkpointing in found if work is not None]
        return min(fitting, key=lambda of: sum(self.flops(*of).values()), default=None)


def usable(gpu_bytes: float) -> float:
    """Bytes of a GPU that tensors can have."""
    return gpu_bytes * (1 - RESERVE) - CUDA_CONTEXT


def plan_of(
    module: AlphaGRPO,
    precision: Any = None,
    prompts: int = 1,
    prompt_tokens: int = 64,
    reasoning_tokens: int | None = None,
    ranks: int = 1,
    sharded: bool = False,
) -> RunPlan:
    """The plan of a module that has not loaded its policy.

    Args:
        precision: Lightning's.
        prompts: of an update, whose samples are dealt to the ranks.
        prompt_tokens: of the longest prompt.
        reasoning_tokens: of the longest reasoning; the task's limit if None.

    Raises:
        ValueError: the policy's source has no outline, or its model tells no sizes.
        FileNotFoundError: its configuration files are missing.
    """
    model = module.policy_source.outline()
    sizes, stored = model.sizes, model.dtype.itemsize
    autocast = "mixed" in str(precision)
    how = Arithmetic(
        stored=stored if module.trainable.lora else 4,
        computed=2 if autocast else (stored if module.trainable.lora else 4),
        autocast=autocast,
        adapters=module.trainable.lora is not None,
        checkpointing=bool(getattr(model, "gradient_checkpointing", False)),
    )
    task, tokens = module.task, (prompt_tokens, reasoning_tokens)
    samples = -(-prompts * module.num_generations // ranks)
    work = workload(module, model, turn_of(task), module.sampler, samples, *tokens)
    first = None
    if isinstance(task, SelfReflection):
        number = module.num_generations if task.train_first else task.candidates
        sampler = task.first_sampler or module.sampler
        first = workload(module, model, task.first.turn, sampler, -(-prompts * number // ranks), *tokens)
    decoding, decoding_flops = decoding_cost(model, turn_of(module.task).canvas)
    loaded = _bytes(model)
    with torch.device("meta"):
        lora = dataclasses.replace(module.trainable.lora, adapter=None) if module.trainable.lora else None
        policy = prepare(model, lora, module.trainable.freeze)
    trained = sum(p.numel() * p.element_size() for p in policy.parameters() if p.requires_grad)
    weights = Weights(
        frozen=_bytes(policy) - trained,
        trained=trained,
        largest_layer=_bytes(policy) // sizes.layers,
        optimizer=round(trained / 4 * state_per_weight(module.make_optimizer)),
        reference=frozen_copies(module, loaded, trained, _bytes(policy)),
        autoencoder=sizes.autoencoder,
        decoding=decoding,
        decoded_at_once=turn_of(module.task).canvas.decoded_at_once,
    )
    return RunPlan(
        work=work,
        sizes=sizes,
        how=how,
        weights=weights,
        decoding_flops=decoding_flops,
        first=first,
        first_trained=isinstance(task, SelfReflection) and task.train_first,
        cuttable=task.replays_parts and not module.objective.needs.whole_samples,
        ranks=ranks,
        sharded=sharded,
    )


def workload(
    module: AlphaGRPO,
    model: UnifiedModel,
    turn: Turn,
    sampler: Sampler,
    samples: int,
    prompt_tokens: int,
    reasoning_tokens: int | None,
) -> Workload:
    """What a turn of the module's task asks of the model. Tasks other than ReasoningT2I look at a picture first."""
    task, canvas = module.task, turn.canvas
    if isinstance(task, SelfReflection) and turn is task.first.turn:
        task = task.first
    rows, columns = model.latent_grid(canvas.height, canvas.width)
    latents = model.latent_room((rows, columns))
    picture = 0
    if not isinstance(task, ReasoningT2I):
        _, vit = model.picture_transforms
        picture = latents + model.picture_room(*vit.size(canvas.height, canvas.width))
    limit = turn.max_tokens if reasoning_tokens is None else reasoning_tokens
    guided, trained_guided = guided_steps(sampler, canvas)
    states = module.objective.needs.states
    guided_states = states if canvas.guidance.text > 1 else 0
    prompts = -(-samples // module.num_generations)
    together = getattr(task, "prompts_per_forward", None) or prompts
    if requests := getattr(task, "requests_per_forward", None):
        together = max(1, requests // module.num_generations)
    return Workload(
        samples=samples,
        prompts_per_forward=min(together, prompts),
        group=module.num_generations,
        micro_batch=min(module.updating.micro_batch_size, module.num_generations),
        prefix=model.text_room(len(model.encode_text(model.defaults.think_prompt))) if turn.think else 0,
        prompt=model.text_room(prompt_tokens),
        reasoning=model.text_room(limit) if turn.think else 0,
        picture=picture,
        latents=latents,
        evaluations=sampler.evaluations,
        guided=guided,
        trained=sampler.window_size + states,
        trained_guided=trained_guided + guided_states,
        branches=(1 + (canvas.guidance.image > 1)) if guided else 0,
        steps_per_backward=module.updating.steps_per_backward,
        context_gradient=module.updating.context_gradient,
    )


def frozen_copies(module: AlphaGRPO, loaded: int, trained: int, whole: int) -> int:
    """Bytes of the policies that are kept beside the trained one: the reference's, and that of the rollout.

    Args:
        loaded: bytes of the model as it was loaded.
        trained: of what is trained, which is all that is kept of the rollout's adapters.
        whole: of the model with its adapters.
    """
    needs, adapters = module.objective.needs, module.trainable.lora is not None
    reference = loaded if needs.reference and not adapters else 0
    keeps_rollout = needs.old_velocity and module.updating.keeps_rollout_policy
    return reference + ((trained if adapters else whole) if keeps_rollout else 0)


def guided_steps(sampler: Sampler, canvas: Canvas) -> tuple[int, int]:
    """How many evaluations of a picture are guided, and how many trained ones at most."""
    guided = [canvas.guidance.active(sigma) for sigma in sampler.sigma_N[:-1].tolist()]
    return sum(guided), max(sum(guided[step] for step in steps) for steps in sampler.windows)


def decoding_cost(model: UnifiedModel, canvas: Canvas) -> tuple[int, float]:
    """Bytes that making the pixels of one picture holds at most, and its operations; the model is an outline."""
    grid = model.latent_grid(canvas.height, canvas.width)
    latents_NLD = torch.zeros(1, grid[0] * grid[1], model.latent_size, device=model.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, LiveBytes() as held:
        model.decode_latents(latents_NLD, grid)
    return held.peak, float(counter.get_total_flops())


def state_per_weight(make_optimizer: Callable[[Any], Any]) -> float:
    """Bytes that an optimizer keeps of each weight, found by one step on a few."""
    probe = nn.Parameter(torch.zeros(PROBE))
    optimizer = make_optimizer([probe])
    probe.grad = torch.zeros(PROBE)
    optimizer.step()
    kept = [value for value in optimizer.state[probe].values() if isinstance(value, torch.Tensor)]
    return sum(value.numel() * value.element_size() for value in kept) / PROBE


def turn_of(task: Task) -> Turn:
    """How a task's trained turns are made. Raises ValueError for a task that is not made of turns."""
    turn = getattr(task, "turn", None)
    if not isinstance(turn, Turn):
        raise ValueError(
            f"{type(task).__name__} is not made of turns (project/tasks/turn.py), so there is no plan of it"
        )
    return turn


def settings_of(work: Workload, task: Any) -> str:
    """Options of `fit` that make a workload's micro-batch, its cuts, and its number of pictures drawn together."""
    together = f"prompts_per_forward={work.prompts_per_forward}"
    if hasattr(task, "requests_per_forward"):
        together = f"requests_per_forward={work.rows}"
    update = f"--model.init_args.update.micro_batch_size={work.micro_batch}"
    if work.steps_per_backward is not None:
        update += f" --model.init_args.update.steps_per_backward={work.steps_per_backward}"
    return f"{update} --model.init_args.task.init_args.{together}"


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in [*model.parameters(), *model.buffers()])
