"""The steps of an update at full size, kernel by kernel, without weights or a GPU: `python -m project plan --trace`.

Shapes say which kernels run and what they move (`project.planning.kernels`). A kernel takes as long as its operations
at the speed that products reach, or its bytes at the bandwidth of the memory, whichever is longer. Waiting for the host
comes on top, so every figure is a least time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from project.models.cached_transformer import CachedTransformer
from project.models.context import Context, Contexts
from project.module import AlphaGRPO
from project.planning.as_on_a_gpu import AsOnGPU, as_on_a_gpu, backward
from project.planning.estimates import Workload
from project.planning.kernels import PRODUCTS, Kernel, Kernels, Kind
from project.planning.run_plan import turn_of
from project.training.trainable import prepare

DEVICE = "meta"
REACHED = 0.8
"""Share of the peak that large products reach: an assumption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """The kernels of one step."""

    name: str
    kernels: Sequence[Kernel]

    @property
    def flops(self) -> int:
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def moved(self) -> int:
        return sum(kernel.moved for kernel in self.kernels)

    def of(self, kind: Kind) -> Traced:
        """Those of one kind alone."""
        return Traced(name=kind, kernels=[kernel for kernel in self.kernels if kernel.kind == kind])

    @property
    def kinds(self) -> list[Traced]:
        """Those of each kind that there is."""
        return [some for kind in get_args(Kind) if (some := self.of(kind)).kernels]

    def seconds(self, peak: float, bandwidth: float) -> float:
        """At least, at a peak of operations per second and bytes per second."""
        return sum(kernel.seconds(peak * REACHED, bandwidth) for kernel in self.kernels)

    def products(self, peak: float, bandwidth: float) -> float:
        """Seconds of matrix products and attention alone."""
        return sum(self.of(kind).seconds(peak, bandwidth) for kind in PRODUCTS)


def traced_steps(module: AlphaGRPO, work: Workload, precision: Any) -> Iterator[Traced]:
    """A text token, a denoising step unguided and guided, and the replay of a micro-batch with its backward pass.

    Args:
        work: what the plan says of the module; contexts are as long as those of its longest samples.
        precision: Lightning's.

    Raises ValueError for a policy that is no transformer with a cache.
    """
    lora = module.trainable.lora
    with torch.device("meta"):
        model = prepare(
            module.policy_source.outline(),
            dataclasses.replace(lora, adapter=None) if lora else None,
            module.trainable.freeze,
        )
    if not isinstance(model, CachedTransformer):
        raise ValueError(f"{type(model).__name__} is no CachedTransformer, so its steps cannot be traced")
    counter = Kernels(adapters=lora.rank if lora else 0)
    counter.paused = True
    with as_on_a_gpu(counter, autocast="mixed" in str(precision)) as gpu:
        steps = _Steps(module, model, work, gpu)
        for name, step in steps.all():
            step()  # once without counting: mixed precision narrows weights once and keeps them
            counter.paused, counter.kernels = False, []
            step()
            counter.paused = True
            yield Traced(name=name, kernels=counter.kernels)


class _Steps:
    def __init__(self, module: AlphaGRPO, model: CachedTransformer, work: Workload, gpu: AsOnGPU) -> None:
        self.module, self.model, self.work, self.gpu = module, model, work, gpu
        canvas = turn_of(module.task).canvas
        self.guidance = canvas.guidance
        self.grid = model.latent_grid(canvas.height, canvas.width)

    def all(self) -> Iterator[tuple[str, Callable[[], None]]]:
        rows, work = self.work.rows, self.work
        if work.reasoning:
            yield f"a text token of {rows} rows", self.token
        if work.guided < work.evaluations:
            yield f"a denoising step of {rows} rows", lambda: self.denoise(guided=False)
        if work.guided:
            yield f"a guided denoising step of {rows} rows", lambda: self.denoise(guided=True)
        guided = f", {work.trained_guided} of them guided" if work.trained_guided else ""
        yield (
            f"the replay of {work.micro_batch} sample(s): {work.reasoning} tokens, {work.trained} steps{guided}",
            self.replay,
        )

    def token(self) -> None:
        with torch.no_grad():
            self.model.first_token_log_probs(self._read(self.work.read, room=1, padded=self.work.rows > 1))

    def denoise(self, guided: bool) -> None:
        work = self.work
        lengths = (work.read, *work.branch_read)
        room = work.latents
        with torch.no_grad():
            # Texts of unequal length are padded. Without the prompt there is none.
            read = [self._read(n, room, padded=work.rows > 1 and n == work.read) for n in lengths]
            contexts = Contexts(main=read[0], text_free=read[-1] if len(read) < 3 else read[1], image_free=read[-1])
            self._velocity(work.rows, self._times(guided, 1), contexts)

    def replay(self) -> None:
        """As the plan counts it: what comes before the reasoning is read once, and all trained steps together."""
        work, model = self.work, self.model
        samples = work.micro_batch
        once = work.prefix + work.picture + work.prompt
        context = self._appended(model.functional_context(1), once)
        repeated = torch.zeros(samples, dtype=torch.long, device=DEVICE)
        main: Context = context.select(repeated)
        loss = torch.zeros((), device=DEVICE)
        self.gpu.truth = False
        if work.reasoning:
            self.gpu.chosen = samples * (work.reasoning - 1)
            ids = [torch.zeros(work.reasoning - 1, dtype=torch.long, device=DEVICE) for _ in range(samples)]
            main, said = model.text_log_probs(main, ids)
            loss = loss + said.log_prob_RT.sum()
        free = [self._appended(model.functional_context(1), n).select(repeated) for n in work.branch_read]
        contexts = Contexts(main=main, text_free=free[0] if free else main, image_free=free[-1] if free else None)
        if not work.context_gradient:
            contexts = contexts.detach()
        self.gpu.truth = samples == 1
        guided = work.trained_guided
        sigmas = self._times(True, guided) + self._times(False, work.trained - guided)
        velocity = self._velocity(samples, sigmas, contexts)
        loss = loss + velocity.square().mean()
        backward([loss], [torch.ones_like(loss)])

    def _read(self, tokens: int, room: int, padded: bool) -> Context:
        rows = self.work.rows
        context = self.model.static_context(rows, tokens + room)
        context.grown([], torch.ones(rows, tokens, dtype=torch.bool, device=DEVICE), context.position_R)
        self.gpu.truth = not padded
        assert context.padded == padded  # asked once and kept
        self.gpu.truth = False
        return context

    def _appended(self, context: Context, tokens: int) -> Context:
        self.gpu.truth = False
        if not tokens:
            return context
        return self.model.append_tokens(context, torch.zeros(1, tokens, dtype=torch.long, device=DEVICE))

    def _times(self, guided: bool, number: int) -> list[float]:
        """Flow times of the sampler's schedule at which guidance acts or does not."""
        known = self.module.sampler.sigma_N[:-1].tolist()
        return [next(sigma for sigma in known if self.guidance.active(sigma) == guided)] * number if number else []

    def _velocity(self, rows: int, sigmas: Sequence[float], contexts: Contexts) -> Tensor:
        states = torch.zeros(rows, len(sigmas), self.grid[0] * self.grid[1], self.model.latent_size, device=DEVICE)
        return self.model.velocity(states, torch.tensor(sigmas), contexts, self.guidance, self.grid)
