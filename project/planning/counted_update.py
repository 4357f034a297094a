"""One update, counted: what it did beside what the arithmetic of the plan says is needed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from project.models.base import UnifiedModel
from project.models.query import Query
from project.module import AlphaGRPO
from project.planning.counting import Operations, Part, Tally
from project.planning.estimates import Workload
from project.planning.run_plan import RunPlan, plan_of
from project.planning.waiting import Waits
from project.samplers.sampler import Sampler
from project.tasks.rounds import instruction
from project.tasks.self_reflection import SelfReflection
from project.tasks.turn import Turn
from project.trajectory import Group

COUNTED = 1
"""The update that is counted: the first one after the one that warms up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCount:
    """A phase of the update. Operations are floating point operations.

    Attributes:
        done: what was counted.
        needed: operations by the plan's arithmetic, for the texts that were written, as if no two samples had
            anything in common; None where it has none.
        padding: operations on tokens that nobody sees: padding, and texts that have ended.
        delimiters: on the tokens beside latents, in the expert that is not theirs.
        dead_branches: on branches of guidance that guide nothing.
    """

    done: Tally
    needed: float | None
    padding: float
    delimiters: float
    dead_branches: float

    @property
    def ratio(self) -> float | None:
        """Operations done over operations needed."""
        return self.done.flops / self.needed if self.needed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCount:
    """A forward of one kind in one phase, with what follows it up to the next: the median of all of them."""

    phase: str
    kind: str
    number: int
    tokens: float
    flops: float
    calls: float
    weight_bytes: float
    casts: float
    copies: float
    waits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedUpdate:
    """What an update did.

    Attributes:
        phases: by name, in the order in which they began.
        steps: forwards by phase and kind.
        waits: times that the host waits for the device, by (phase, kind of forward, place, function).
        images, text_tokens: that were sampled.
    """

    phases: dict[str, PhaseCount]
    steps: list[StepCount]
    waits: Counter[tuple[str, str, str, str]]
    images: int
    text_tokens: int

    @property
    def weight_bytes_per_token(self) -> float | None:
        """Bytes of weights read while texts are written, for each token of each text; None without texts."""
        written = [step for step in self.steps if step.phase == "rollout_text" and step.kind == WRITE]
        if not written or not self.text_tokens:
            return None
        return sum(step.weight_bytes * step.number for step in written) / self.text_tokens


WRITE = "write a token"
"""Of all rows together."""


class CountingCallback(Callback):
    """Counts the update after the first. Counting changes no value; the update takes longer.

    Attributes:
        counted: of the update; None before it is over.
    """

    def __init__(self, precision: Any, prompts: int) -> None:
        self.counted: CountedUpdate | None = None
        self._precision = precision
        self._prompts = prompts
        self._stack = ExitStack()
        self._operations: Operations | None = None
        self._waits: Counter[tuple[str, str, str, str]] = Counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, AlphaGRPO)
        if pl_module.updates != COUNTED or self._operations is not None:
            return
        stopwatch = pl_module.stopwatch
        operations = Operations(pl_module.model.named_parameters(), lambda: stopwatch.current)
        self._operations = operations

        def wait(place: str, function: str) -> None:
            if operations.paused:
                return
            part = operations.part
            part.tally.waits += 1
            self._waits[part.phase, part.kind, place, function] += 1

        handle = pl_module.model.register_forward_pre_hook(partial(_forward, operations), with_kwargs=True)
        self._stack.callback(handle.remove)
        for name, kind in (("decode_latents", "decode latents"), ("encode_image", "encode a picture")):
            self._stack.callback(_noted(pl_module.model, name, partial(operations.begin, kind)))
        self._stack.enter_context(operations)
        self._stack.enter_context(Waits(wait))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._operations is None or self.counted is not None:
            return
        self._stack.close()
        assert isinstance(pl_module, AlphaGRPO)
        groups = outputs["groups"]
        parts = self._operations.parts
        tokens = sum(len(text.ids_T) for group in groups for t in group.trajectories for text in t.texts)
        needed = needed_flops(pl_module, groups, self._precision, self._prompts)
        self.counted = CountedUpdate(
            phases=phase_counts(parts, pl_module.model, needed),
            steps=step_counts(parts),
            waits=self._waits,
            images=sum(len(t.images) for group in groups for t in group.trajectories),
            text_tokens=tokens,
        )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stack.close()


def _forward(operations: Operations, model: UnifiedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A forward of the model begins."""
    operations.paused = True
    try:
        operations.begin(**_purpose(args, kwargs))
    finally:
        operations.paused = False


def _purpose(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    query = args[0] if args else kwargs.get("query")
    if not isinstance(query, Query):
        return {"kind": "forward"}
    contexts = args[1] if len(args) > 1 else kwargs.get("contexts", ())
    words = query.ids_RT.numel()
    hidden = 0 if query.visible_RT is None else words - int(query.visible_RT.sum())
    if query.latents_RLD is None:
        kind = "read a picture" if query.pictures is not None else "read texts"
        if isinstance(query.logits, str):
            kind = WRITE
        elif query.logits is not None:
            kind = "replay texts"
        return {"kind": kind, "tokens": words, "hidden": hidden}
    latents = query.latents_RLD.shape[0] * query.latents_RLD.shape[1]
    assert query.sigma_RL is not None
    kind = "read latents"
    if bool((query.sigma_RL > 0).any()):
        kind = "denoise" if len(contexts) < 2 else f"denoise, {len(contexts)} contexts"
    return {
        "kind": kind, "tokens": words + latents, "hidden": hidden, "delimiters": words, "latents": latents,
    }  # fmt: skip


def _noted(model: UnifiedModel, name: str, begin: Callable[[], None]) -> Callable[[], None]:
    """Has `begin` called before a method of the model; returns how to undo it."""
    method = getattr(model, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        begin()
        return method(*args, **kwargs)

    setattr(model, name, noted)
    return lambda: delattr(model, name)


def step_counts(parts: Sequence[Part]) -> list[StepCount]:
    """The forwards by phase and kind, in the order in which they first came."""
    found: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        if part.kind:
            found.setdefault((part.phase, part.kind), []).append(part)
    names = ("flops", "calls", "weight_bytes", "casts", "copies", "waits")
    return [
        StepCount(
            phase=phase,
            kind=kind,
            number=len(same),
            tokens=median(part.tokens for part in same),
            **{name: median(getattr(part.tally, name) for part in same) for name in names},
        )
        for (phase, kind), same in found.items()
    ]


def phase_counts(parts: Sequence[Part], model: UnifiedModel, needed: dict[str, float]) -> dict[str, PhaseCount]:
    """The phases in the order in which they began.

    What the backward pass spends on padding and on the rest is not counted but taken from the replay's, at the ratio of
    their operations.
    """
    token_flops = 2.0 * model.sizes.layers * model.sizes.matrix_weights
    phases: dict[str, PhaseCount] = {}
    for name in dict.fromkeys(part.phase for part in parts):
        mine = [part for part in parts if part.phase == name]
        done = sum((part.tally for part in mine), Tally())
        drawn = sum(part.latents for part in mine if part.kind.startswith("denoise"))
        phases[name] = PhaseCount(
            done=done,
            needed=needed.get(name),
            padding=token_flops * sum(part.hidden for part in mine),
            delimiters=token_flops * sum(part.delimiters for part in mine),
            dead_branches=token_flops * max(0.0, drawn - needed.get(f"{name} latents", drawn)),
        )
    if "replay" in phases and "backward" in phases and phases["replay"].done.flops:
        replay, backward = phases["replay"], phases["backward"]
        scale = backward.done.flops / replay.done.flops
        phases["backward"] = dataclasses.replace(
            backward,
            padding=scale * replay.padding,
            delimiters=scale * replay.delimiters,
            dead_branches=scale * replay.dead_branches,
        )
    return phases


def needed_flops(module: AlphaGRPO, groups: Sequence[Group], precision: Any, prompts: int) -> dict[str, float]:
    """Operations of the phases by the plan's arithmetic, with the texts and windows of the update.

    The reference replays what the policy does. "PHASE latents" are latent tokens that have to be denoised in it.
    """
    plan = plan_of(module, precision, prompts=prompts)
    total: Counter[str] = Counter()
    if plan.first is not None and not plan.first_trained:
        assert isinstance(module.task, SelfReflection)
        _add_rollout(total, module, plan, plan.first, module.task.first.turn, plan.first.samples)
    for group in groups:
        turn, sampler, work = _made_by(module, plan, group)
        work = _measured(module, group, turn, sampler, work)
        pictures = sum(bool(t.images) for t in group.trajectories)  # a sample may have kept the one that it saw
        _add_rollout(total, module, plan, work, turn, pictures)
        survivors = 0 if group.advantages is None else sum(group.advantages.valid_N.tolist())
        replayed = dataclasses.replace(work, samples=survivors)
        for name in ("replay", "backward"):
            total[name] += plan.flops_of(replayed)[name]  # type: ignore[assignment]
        states = work.trained + work.branches * work.trained_guided
        total["replay latents"] += survivors * states * _latents(module, turn)  # type: ignore[assignment]
    if module.objective.needs.reference:
        total["reference"], total["reference latents"] = total["replay"], total["replay latents"]
    return {name: float(count) for name, count in total.items()}


def _add_rollout(
    total: Counter[str], module: AlphaGRPO, plan: RunPlan, work: Workload, turn: Turn, pictures: int
) -> None:
    texts = -(-work.samples // turn.images_per_text)
    writing = dataclasses.replace(work, samples=texts, group=-(-work.group // turn.images_per_text))
    total["rollout_text"] += plan.flops_of(writing)["rollout_text"]  # type: ignore[assignment]
    drawing = dataclasses.replace(work, samples=pictures)
    total["rollout_image"] += plan.flops_of(drawing)["rollout_image"]  # type: ignore[assignment]
    states = pictures * (work.evaluations + work.branches * work.guided)
    total["rollout_image latents"] += states * _latents(module, turn)


def _latents(module: AlphaGRPO, turn: Turn) -> int:
    """L, latent tokens of a picture."""
    rows, columns = module.model.latent_grid(turn.canvas.height, turn.canvas.width)
    return rows * columns


def _measured(module: AlphaGRPO, group: Group, turn: Turn, sampler: Sampler, work: Workload) -> Workload:
    """What a group asked of the model: its samples, and the mean of their texts and windows."""
    drawn = [t for t in group.trajectories if not t.stopped]
    model = module.model
    trained = [work.trained if t.images else 0 for t in drawn]
    read = [model.text_room(len(model.encode_text(_read(module, group, t.prompt.text)))) for t in drawn]
    written = [model.text_room(len(text.ids_T)) for t in drawn for text in t.texts]
    guided = [
        sum(turn.canvas.guidance.active(float(sampler.sigma_N[step])) for i in t.images for step in i.step_K.tolist())
        for t in drawn
    ]
    # In the second round and later every sample reads a picture of its own.
    units = len({(t.prompt.id, t.key.occurrence, id(t.source)) for t in drawn})
    share = max(1, len(drawn) // max(1, units))
    return dataclasses.replace(
        work,
        samples=len(drawn),
        group=share,
        micro_batch=min(work.micro_batch, share),
        prompt=round(fmean(read)) if read else 0,
        reasoning=round(fmean(written)) if written else 0,
        trained=fmean(trained) if trained else 0,  # type: ignore[arg-type]
        trained_guided=fmean(guided) if guided else 0,  # type: ignore[arg-type]
    )


def _made_by(module: AlphaGRPO, plan: RunPlan, group: Group) -> tuple[Turn, Sampler, Workload]:
    task = module.task
    if isinstance(task, SelfReflection) and not group.round:
        assert plan.first is not None
        return task.first.turn, task.first_sampler or module.sampler, plan.first
    return task.turns[-1], module.sampler, plan.work


def _read(module: AlphaGRPO, group: Group, prompt: str) -> str:
    """What is read beside the system prompt, as text."""
    task = module.task
    if isinstance(task, SelfReflection) and group.round:
        return instruction(task.wording or module.model.defaults.reflect_prompt, prompt)
    return prompt
