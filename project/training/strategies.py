"""Which of Lightning's strategies train here: those that keep the weights of all ranks equal."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    SingleDeviceStrategy,
    Strategy,
    StrategyRegistry,
    XLAStrategy,
)

NO_DDP = (DeepSpeedStrategy, XLAStrategy)
"""Derived from Lightning's DDP, but they average gradients elsewhere: in an engine, or in the optimizer's step."""
WORKING = "set it to auto, to ddp or to a variant of ddp (such as ddp_find_unused_parameters_true)"
"""What every refusal ends with."""


def check_strategy(strategy: str | Strategy) -> None:
    """Raises ValueError for a strategy, or the name of one, that would train every rank by itself, or is unknown.

    A module that makes its own optimizer steps has its gradients averaged by DDP alone. The sharding strategies expect
    a model that was split among the ranks; on a whole one they run to the end, each rank with other weights.
    """
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    if name == "auto":
        return
    kind = _registered(strategy) if isinstance(strategy, str) else type(strategy)
    if kind is not None and issubclass(kind, DDPStrategy | SingleDeviceStrategy) and not issubclass(kind, NO_DDP):
        return
    if name == "fsdp2":
        raise ValueError(f"--trainer.strategy fsdp2 cannot be used yet: {WORKING}")
    if kind is None:
        raise ValueError(f"--trainer.strategy {name}: there is no strategy of this name: {WORKING}")
    raise ValueError(
        f"--trainer.strategy {name} does not average the gradients of this model, so every rank would train weights of "
        f"its own (fsdp2, which shares weights out, cannot be used yet): {WORKING}"
    )


def _registered(name: str) -> type[Strategy] | None:
    """The strategy that Lightning knows by this name."""
    registered: dict[str, dict[str, Any]] = dict(StrategyRegistry)  # its own `get` would make the strategy
    entry = registered.get(name.lower())
    return None if entry is None else entry["strategy"]
