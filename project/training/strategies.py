"""Which strategies train here (those that keep the weights of all ranks equal), and how long their ranks wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    SingleDeviceStrategy,
    Strategy,
    StrategyRegistry,
    XLAStrategy,
)
from torch import distributed

from project.training.sharding import FullySharded

NO_DDP = (DeepSpeedStrategy, XLAStrategy)
"""Derived from Lightning's DDP, but they average gradients elsewhere: in an engine, or in the optimizer's step."""
WORKING = "set it to auto, to ddp or a variant of ddp, or to fsdp2"
"""What every refusal ends with."""
LONGEST_TIMEOUT = timedelta(days=365)
"""Of collectives, where somebody is ready to wait for ever."""


def check_strategy(strategy: str | Strategy) -> None:
    """Raises ValueError for a strategy, or the name of one, that would train every rank by itself, or is unknown.

    The project's modules average gradients over ranks under DDP, and share out their weights under its own strategy
    `fsdp2` alone. Under another one that shares weights out they would run to the end, each rank with other weights.
    """
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    if name == "auto":
        return
    kind = _registered(strategy) if isinstance(strategy, str) else type(strategy)
    known = DDPStrategy | SingleDeviceStrategy | FullySharded
    if kind is not None and issubclass(kind, known) and not issubclass(kind, NO_DDP):
        return
    if kind is None:
        raise ValueError(f"--trainer.strategy {name}: there is no strategy of this name: {WORKING}")
    raise ValueError(
        f"--trainer.strategy {name} does not average the gradients of this model, so every rank would train weights of "
        f"its own: {WORKING}"
    )


def processes(strategy: Strategy, size: int) -> str:
    """How the work of a run is shared, in words: "2 ranks (ddp)", "one process"."""
    if isinstance(strategy, SingleDeviceStrategy):
        return "one process"
    name = "fsdp2" if isinstance(strategy, FullySharded) else "ddp"
    return f"{size} rank{'s' if size > 1 else ''} ({name})"


def lengthen_timeout(strategy: Strategy, seconds: float) -> None:
    """Lets ranks wait for one another in collectives for `seconds` longer than the strategy's time-out.

    Otherwise a judge that keeps one rank waiting would end the run of all the others. Does nothing in a single process.
    """
    if not seconds or not distributed.is_available() or not distributed.is_initialized():
        return
    given: timedelta = getattr(strategy, "_timeout", None) or distributed.constants.default_pg_timeout
    longer = min(given.total_seconds() + seconds, LONGEST_TIMEOUT.total_seconds())
    distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=longer))


def _registered(name: str) -> type[Strategy] | None:
    """The strategy that Lightning knows by this name."""
    registered: dict[str, dict[str, Any]] = dict(StrategyRegistry)  # its own `get` would make the strategy
    entry = registered.get(name.lower())
    return None if entry is None else entry["strategy"]
