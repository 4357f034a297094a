"""`GradientSignal`: how much of an update's gradient is signal, part by part of the model.

Hours of training tell whether a set-up learns; its gradients tell within minutes. A gradient g_u is a mean G and noise.
From U updates, per part of the model, both are estimated without bias:

    noise  = sum_u |g_u - mean|^2 / (U - 1)          what one update's gradient is off, squared
    signal = |mean|^2 - noise / U                    |G|^2; about 0, and perhaps below, where there is nothing to learn

After T updates of one size the drift along G is T |G|, the noise has walked sqrt(T noise): learning wins once
T > noise / signal, and a part with little signal and much noise is better frozen, or trained at a lower rate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from project.training.sharding import whole


class GradientSignal(Callback):
    """Logs `signal/PART` (signal / noise of one update) and `noise_share/PART` once every `window` updates.

    The weights move within a window. To measure them as they are, set the optimizer's rates to 0:

        python -m project fit --config configs/shapes/demo.yaml --config configs/shapes/signal.yaml

    Costs one fp32 copy of the trainable parameters. The gradients are those that the optimizer sees, so after clipping.

    Args:
        window: U, updates that an estimate is made from.
        parts: patterns of parameter names (re.search), the first match counts; what matches none is `other`. With no
            pattern a part is a parameter's own name, of all layers together.
    """

    def __init__(self, window: int = 24, parts: Sequence[str] = ()) -> None:
        if window < 2:
            raise ValueError(f"GradientSignal: window = {window}: noise is estimated from 2 updates or more")
        self.window = window
        self.parts = tuple(parts)
        self._forget()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = [name for name, parameter in pl_module.named_parameters() if parameter.requires_grad]
        for pattern in self.parts:
            if not any(re.search(pattern, name) for name in names):
                raise ValueError(f"GradientSignal: no trainable parameter's name matches {pattern!r}")

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._updates += 1
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is None:
                continue
            gradient = whole(parameter.grad.detach()).float()
            self._squares[name] = self._squares.get(name, 0.0) + gradient.double().square().sum().item()
            if name in self._sums:
                self._sums[name] += gradient
            else:
                self._sums[name] = gradient.clone()
        if self._updates < self.window:
            return
        lines = [f"{'gradients of ' + str(self.window) + ' updates':<36}  signal / noise   share of the noise"]
        for part, (signal, noise, share) in self._estimates().items():
            ratio = signal / noise if noise else 0.0
            pl_module.log(f"signal/{part}", ratio)
            pl_module.log(f"noise_share/{part}", share)
            lines.append(f"{part:<36}  {ratio:14.4f}   {share:18.1%}")
        rank_zero_info("\n".join(lines))
        self._forget()

    def _estimates(self) -> dict[str, tuple[float, float, float]]:
        """Per part its signal, its noise, and its share of all noise, most noise first; all parts together first."""
        updates = self._updates
        totals: dict[str, list[float]] = {"all": [0.0, 0.0]}
        for name, total in self._sums.items():
            squared_mean = (total.double() / updates).square().sum().item()
            noise = max(self._squares[name] - updates * squared_mean, 0.0) / (updates - 1)
            for part in ("all", self._part(name)):
                found = totals.setdefault(part, [0.0, 0.0])
                found[0] += squared_mean - noise / updates
                found[1] += noise
        everything = totals["all"][1] or 1.0
        ordered = sorted(totals.items(), key=lambda item: -item[1][1])
        return {part: (signal, noise, noise / everything) for part, (signal, noise) in ordered}

    def _part(self, name: str) -> str:
        if self.parts:
            return next((pattern for pattern in self.parts if re.search(pattern, name)), "other")
        words = name.removeprefix("policy.").split(".")
        return ".".join([word for word in words if word not in ("weight", "bias") and not word.isdigit()][-2:])

    def _forget(self) -> None:
        self._updates = 0
        self._sums: dict[str, Tensor] = {}
        self._squares: dict[str, float] = {}
