"""Learning rates over a run."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


class WarmupHoldDecay(LambdaLR):
    """Linear warm-up, then constant, then linear decay to zero.

    Args:
        optimizer: optimizer whose learning rates are scaled.
        steps: steps of the whole run; if None, `trainer.max_steps` (see `over_whole_run`).
        warmup: steps of the warm-up.
        hold: share of the steps after which the decay begins.
        floor: smallest factor of the decay.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps: int | None = None,
        warmup: int = 100,
        hold: float = 0.5,
        floor: float = 0.02,
    ) -> None:
        self.steps = steps
        self.warmup = warmup
        self.hold = hold
        self.floor = floor
        super().__init__(optimizer, lambda step: self._factor(step))

    def _factor(self, step: int) -> float:
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        if self.steps is None:
            return rise
        left = (self.steps - step) / max(self.steps * (1 - self.hold), 1)
        return rise * max(self.floor, min(1.0, left))

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands, not its shape: a resumed run may be given another length."""
        shape = ("steps", "warmup", "hold", "floor")
        return {name: value for name, value in super().state_dict().items() if name not in shape}


def over_whole_run(scheduler: LRScheduler, max_steps: int) -> LRScheduler:
    """Tell a schedule that has a length of its own how long the run is, unless it was given one.

    Raises ValueError if it needs to know and the run has no end (`trainer.max_steps` is -1).
    """
    if isinstance(scheduler, WarmupHoldDecay) and scheduler.steps is None:
        if max_steps < 1:
            raise ValueError(
                "WarmupHoldDecay must know when the run ends: set trainer.max_steps, or steps of the lr_scheduler"
            )
        scheduler.steps = max_steps
    return scheduler
