"""`EMA`: an exponential moving average of the trainable parameters, saved and (optionally) validated with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from project.training.sharding import kept_by_rank_zero, placed


class EMA(Callback):
    """average <- decay * average + (1 - decay) * parameter after every update, in fp32, trainable parameters only.

    Args:
        decay: Weight of the past, in [0, 1).
        validate_with: Weights that validation, test and prediction use: the average or the raw ones. The key
            `evaluation.weights` of the model goes before it.
    """

    def __init__(self, decay: float = 0.99, validate_with: Literal["ema", "raw"] = "ema") -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay = {decay}: give a number from 0 to below 1")
        self.decay = decay
        self.validate_with = validate_with
        self.average: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] | None = None
        """The raw parameters while the average stands in for them."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.average:
            self.average = {name: p.detach().float().clone() for name, p in _trainable(pl_module)}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name, parameter in _trainable(pl_module):
            average = self._on(parameter, name)
            average.lerp_(parameter.detach().float(), 1 - self.decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluated(pl_module) == "ema":
            self._swap_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_out(pl_module)

    def evaluated(self, pl_module: LightningModule) -> str:
        """The weights of an evaluation, `ema` or `raw`: as the module's evaluation says, else as `validate_with`. They
        are the raw ones where there is no average yet.

        Raises ValueError if the module's evaluation asks for the average and there is none.
        """
        asked: str | None = getattr(getattr(pl_module, "evaluation", None), "weights", None)
        if asked == "ema" and not self.average:
            raise ValueError(
                "model.init_args.evaluation.weights is ema, but there is no average: give --ckpt_path of a run with "
                "the EMA callback"
            )
        return asked or (self.validate_with if self.average else "raw")

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._swap_out(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"average": {name: kept_by_rank_zero(average) for name, average in self.average.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average = dict(state_dict["average"])

    def _on(self, parameter: Tensor, name: str) -> Tensor:
        """The average of a parameter, on its device. Raises ValueError for a parameter that became trainable."""
        if name not in self.average:
            raise ValueError(f"EMA: {name} was not trainable when the run began: start a new run")
        self.average[name] = placed(self.average[name], parameter)
        return self.average[name]

    @torch.no_grad()
    def _swap_in(self, pl_module: LightningModule) -> None:
        if self._raw is not None or not self.average:
            return
        # Copies into the parameters themselves: optimizers and sharded models keep their references.
        self._raw = {name: p.detach().clone() for name, p in pl_module.named_parameters() if name in self.average}
        for name, parameter in pl_module.named_parameters():
            if name in self.average:
                parameter.copy_(self._on(parameter, name))

    @torch.no_grad()
    def _swap_out(self, pl_module: LightningModule) -> None:
        if self._raw is None:
            return
        for name, parameter in pl_module.named_parameters():
            if name in self._raw:
                parameter.copy_(self._raw[name])
        self._raw = None


def _trainable(module: LightningModule) -> Iterator[tuple[str, Tensor]]:
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)
