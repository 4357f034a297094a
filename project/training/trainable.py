"""Which parameters are trained: adapters or all weights, what is frozen, what has its own optimizer options."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from project.core.nearest import nearest
from project.models.base import UnifiedModel
from project.models.lora import LoRA, add_lora

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """What is trained.

    Args:
        lora: adapters to train instead of all weights.
        freeze: patterns of names (re.search) of parameters that are not trained.
        parameter_groups: optimizer options (lr, eps, weight_decay ...) by pattern of parameter names (re.search); the
            first match counts.

    Raises:
        ValueError: for adapters with dropout.
    """

    lora: LoRA | None = None
    freeze: Sequence[str] = ()
    parameter_groups: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lora is not None and self.lora.dropout:
            raise ValueError(
                f"lora.dropout={self.lora.dropout}: replay would drop other activations than rollout did, and ratios "
                "and gradients would be those of the dropout; set model.init_args.trainable.lora.dropout to 0"
            )


def matching(names: Iterable[str], patterns: Iterable[str], key: str, what: str = "parameter's name") -> set[str]:
    """Names in which a pattern is found (re.search).

    Raises ValueError, beginning with `key`, for a pattern that is no regular expression, or is found in none.
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        try:
            some = {name for name in names if re.search(pattern, name)}
        except re.error as error:
            raise ValueError(f"{key}: {pattern!r} is no regular expression: {error}") from None
        if not some:
            raise ValueError(f"{key}: no {what} matches {pattern!r}; there are {', '.join(names[:8])} ...")
        found |= some
    return found


def prepare(policy: UnifiedModel, lora: LoRA | None, freeze: Sequence[str] = ()) -> UnifiedModel:
    """Make a loaded model trainable: adapters or all weights, except what is frozen; trainable parameters in fp32.

    A bf16 weight of 1/64 swallows an AdamW step of 5e-5 whole, so only frozen parameters keep a narrow type.
    Raises ValueError if a pattern of `freeze` matches nothing, or nothing is left to train.
    """
    if lora is not None:
        add_lora(policy, lora)
    frozen = matching((name for name, _ in policy.named_parameters()), freeze, "freeze")
    for name, parameter in policy.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
        elif parameter.requires_grad:
            parameter.data = parameter.data.float()
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise ValueError(f"nothing is left to train: freeze={list(freeze)} matches every parameter")
    return policy


def optimizer_over(module: nn.Module, make: OptimizerCallable, own: Mapping[str, Mapping[str, Any]]) -> Optimizer:
    """The optimizer of what is trainable.

    Args:
        make: makes the optimizer from parameter groups.
        own: options by pattern of parameter names; the first match counts.

    Raises:
        ValueError: for a pattern that matches nothing, options that the optimizer would ignore or refuse, and an
            optimizer of bitsandbytes over weights that are shared out.
    """
    matching((name for name, _ in module.named_parameters()), own, "parameter_groups")
    chosen: dict[str | None, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            chosen[next((pattern for pattern in own if re.search(pattern, name)), None)].append(parameter)
    groups = [{"params": some, **({} if pattern is None else own[pattern])} for pattern, some in chosen.items()]
    try:
        optimizer = make(groups)
    except ValueError as error:
        raise ValueError(f"model.init_args.optimizer or trainable.parameter_groups: {error}") from error
    assert isinstance(optimizer, Optimizer)
    _check_device(optimizer)
    _check_options(own, optimizer.defaults)
    return optimizer


def _check_device(optimizer: Optimizer) -> None:
    """The optimizers of bitsandbytes know neither shared out weights nor, if paged, a CPU."""
    kind = type(optimizer)
    if not kind.__module__.startswith("bitsandbytes."):
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        raise ValueError(
            f"model.init_args.optimizer is {kind.__name__} of bitsandbytes, which cannot work on weights that are "
            "shared out: with --trainer.strategy fsdp2 take torch.optim.AdamW, whose state is shared out too, or set "
            "the strategy to ddp"
        )
    if getattr(optimizer, "is_paged", False) and any(parameter.device.type == "cpu" for parameter in parameters):
        log.warning(
            "%s moves its state between the memory of a GPU and that of the machine: without a GPU nothing is moved",
            kind.__name__,
        )


def _check_options(own: Mapping[str, Mapping[str, Any]], known: Mapping[str, Any]) -> None:
    for pattern, options in own.items():
        for name, value in options.items():
            if name not in known:
                raise ValueError(f"parameter_groups: {pattern}: the optimizer has no {name!r}: {nearest(name, known)}")
            number = isinstance(value, int | float)
            if number != isinstance(known[name], int | float) or (number and value < 0):
                raise ValueError(
                    f"parameter_groups: {pattern}: {name} = {value!r}: give what the optimizer takes (its own is "
                    f"{known[name]!r}), nothing negative"
                )
