"""A model on the meta device, run as it would run on a GPU: norms and attention are one kernel each.

The meta device knows no autocast, so what autocast does to products and norms is done here. What would wait for a value
is told it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from project.models.fused import instead_of_compiling
from project.planning.kernels import Kernels


class AsOnGPU(TorchFunctionMode):
    """Runs models on the meta device and collects the kernels in `counter`.

    Where the CPU's autocast is on, products are made in bf16 and norms in fp32, whatever they are given.

    Attributes:
        truth: what every truth value is. (The models ask whether everything is visible.)
        chosen: how many values a mask chooses.
        narrow: the narrow copies of trained weights, which autocast keeps; None where it keeps none.
    """

    def __init__(self, counter: Kernels) -> None:
        super().__init__()
        self.counter = counter
        self.truth = False
        self.chosen = 0
        self.narrow: dict[tuple[int, bool], Tensor] | None = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.linear and torch.is_autocast_enabled("cpu"):
            fed: Any = [x if x is None else self._narrowed(x) for x in args]
            return func(*fed)
        if func is F.rms_norm:
            return _norm(self.counter, *args, **kwargs)
        if func is F.scaled_dot_product_attention:
            query, key, value = (self._narrowed(x) if torch.is_autocast_enabled("cpu") else x for x in args)
            return _Attention.apply(query, key, value, kwargs.get("attn_mask"), self.counter)
        if func is Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
            return False
        if func is Tensor.__bool__ and args[0].is_meta:
            return self.truth
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            whole = args[0].flatten(0, args[1].ndim - 1)
            return whole.index_select(0, torch.zeros(self.chosen, dtype=torch.long, device="meta"))
        return func(*args, **kwargs)

    def _narrowed(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        if self.narrow is None or not (x.is_leaf and x.requires_grad):
            return x.to(torch.bfloat16)
        key = id(x), torch.is_grad_enabled()
        if key not in self.narrow:
            self.narrow[key] = x.to(torch.bfloat16)
        return self.narrow[key]


@contextmanager
def as_on_a_gpu(counter: Kernels, autocast: bool) -> Iterator[AsOnGPU]:
    """Runs models on the meta device as on a GPU inside the block, in bf16 if `autocast`."""
    gpu = AsOnGPU(counter)
    with ExitStack() as stack:
        stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast))
        stack.enter_context(instead_of_compiling(lambda function: functools.partial(_fused, gpu, function)))
        stack.enter_context(gpu)
        stack.enter_context(counter)
        yield gpu


def backward(results: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """As `torch.autograd.backward`, which would set `AsOnGPU` aside: layers are recomputed in it."""
    _engine_run_backward(
        tuple(results), tuple(gradients), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


# --------------------------------------------------------------------- kernels that a CPU makes of several operations


def _norm(counter: Kernels, x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """On a GPU autocast makes the input of a norm fp32, and the norm is one kernel."""
    assert weight is None, "norms multiply by their gains themselves"
    result: Tensor = _Norm.apply(x.float() if torch.is_autocast_enabled("cpu") else x, counter)
    return result


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counter: Kernels) -> Tensor:
        ctx.save_for_backward(x)
        ctx.counter = counter
        made = torch.empty_like(x)
        counter.add("norms", [x], [made])
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        made = torch.empty_like(x)
        ctx.counter.add("norms", [x, gradients[0]], [made])
        return made, None


class _Attention(torch.autograd.Function):
    """Two products forward; backward makes one of them again, and four for the gradients."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, counter: Kernels) -> Tensor:
        rows, heads, tokens, size = query.shape
        ctx.flops = 4 * rows * heads * tokens * key.shape[2] * size
        # Written as the heads' values side by side, as the kernels of GPUs do.
        made = query.new_empty(rows, tokens, heads, size).transpose(1, 2)
        read = [query, key, value, *([] if mask is None else [mask])]
        ctx.save_for_backward(*read, made)
        ctx.counter = counter
        counter.add("attention", read, [made], ctx.flops)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        read = [*ctx.saved_tensors, gradients[0]]
        made = [torch.empty_like(x) for x in read[:3]]
        ctx.counter.add("attention", read, made, ctx.flops * 5 // 2)
        return *made, None, None


# --------------------------------------------------------------------- what torch.compile fuses


def _fused(gpu: AsOnGPU, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls the function as a compiled one: its own backward is fused too."""
    if not torch.is_grad_enabled():
        return _forward(gpu, function, arguments)
    inputs = [x for x in arguments if isinstance(x, Tensor)]
    anchor = torch.empty(0, requires_grad=True, device="meta")
    return _Fused.apply(gpu, function, arguments, anchor, *inputs)


def _forward(gpu: AsOnGPU, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with gpu.counter.fusing(), _casts_not_kept(gpu):
        results = function(*arguments)
        gpu.counter.needed([x for x in tree_flatten(results)[0] if isinstance(x, Tensor)])
    return results


@contextmanager
def _casts_not_kept(gpu: AsOnGPU) -> Iterator[None]:
    """A compiled function narrows weights whenever it is called."""
    kept, gpu.narrow = gpu.narrow, None
    try:
        yield
    finally:
        gpu.narrow = kept


class _Fused(torch.autograd.Function):
    """The backward pass has the inputs and what products made. It makes again what lies between, inside its kernels."""

    @staticmethod
    def forward(ctx: Any, gpu: AsOnGPU, function: Any, arguments: Any, anchor: Tensor, *inputs: Tensor) -> Any:
        ctx.gpu, ctx.function = gpu, function
        ctx.tensors = [isinstance(x, Tensor) for x in arguments]
        ctx.others = [None if isinstance(x, Tensor) else x for x in arguments]
        results = _forward(gpu, function, arguments)
        # The results stand for what products made: checkpointing must make them again.
        ctx.save_for_backward(*inputs, *([results] if isinstance(results, Tensor) else results))
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gpu: AsOnGPU = ctx.gpu
        counter = gpu.counter
        places = [place for place, needed in enumerate(ctx.tensors) if needed]
        inputs = [x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors[: len(places)]]
        arguments = list(ctx.others)
        for place, x in zip(places, inputs, strict=True):
            arguments[place] = x
        weights = [p for x in arguments if isinstance(x, nn.Module) for p in x.parameters() if p.requires_grad]
        with counter.fusing(), _casts_not_kept(gpu):
            with torch.enable_grad(), counter.fusing(forgotten=True):
                results = ctx.function(*arguments)
            results = (results,) if isinstance(results, Tensor) else results
            wanted = [
                (made, gradient)
                for made, gradient in zip(results, gradients, strict=True)
                if gradient is not None and made.requires_grad
            ]
            if wanted:
                backward([made for made, _ in wanted], [gradient for _, gradient in wanted])
            counter.needed([x.grad for x in (*inputs, *weights) if x.grad is not None])
        return None, None, None, None, *(x.grad for x in inputs)
