"""Learning rates over a run."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupHoldDecay(LambdaLR):
    """Linear warm-up, then constant, then linear decay to zero.

    Args:
        optimizer: whose learning rates are scaled.
        steps: of the whole run.
        warmup: steps of the warm-up.
        hold: share of the steps after which the decay begins.
        floor: least factor of the decay.
    """

    def __init__(
        self, optimizer: Optimizer, steps: int, warmup: int = 100, hold: float = 0.5, floor: float = 0.02
    ) -> None:
        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(warmup, 1))
            left = (steps - step) / max(steps * (1 - hold), 1)
            return rise * max(floor, min(1.0, left))

        super().__init__(optimizer, factor)
