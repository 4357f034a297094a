"""Learning rates over a run."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


class WarmupHoldDecay(LambdaLR):
    """Linear warm-up, then constant, then linear decay to zero.

    Args:
        optimizer: whose learning rates are scaled.
        steps: of the whole run; `trainer.max_steps` if None (see `over_whole_run`).
        warmup: steps of the warm-up.
        hold: share of the steps after which the decay begins.
        floor: least factor of the decay.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps: int | None = None,
        warmup: int = 100,
        hold: float = 0.5,
        floor: float = 0.02,
    ) -> None:
        # No attribute: those are saved with a checkpoint, and a resumed run may be given another length.
        length = [steps]

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(warmup, 1))
            if length[0] is None:
                return rise
            left = (length[0] - step) / max(length[0] * (1 - hold), 1)
            return rise * max(floor, min(1.0, left))

        def end_at(last: int) -> None:
            length[0] = length[0] or last

        self.end_at = end_at
        super().__init__(optimizer, factor)

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name != "end_at"}


def over_whole_run(scheduler: LRScheduler, max_steps: int) -> LRScheduler:
    """Tell a schedule that has a length of its own how long the run is, unless it was given one.

    Raises ValueError if it needs to know and the run has no end (`trainer.max_steps` is -1).
    """
    if isinstance(scheduler, WarmupHoldDecay):
        if max_steps < 1:
            raise ValueError("WarmupHoldDecay must know when the run ends: set trainer.max_steps")
        scheduler.end_at(max_steps)
    return scheduler
