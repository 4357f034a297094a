"""The moving average against its recursion by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from project.callbacks.checkpoint import SaveLast
from project.callbacks.ema import EMA
from tests.helpers import toys


class Watch(Callback):
    """Notes the weight after every update and during every validation."""

    def __init__(self) -> None:
        self.raw: list[float] = []
        self.validated: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.raw.append(pl_module.net.weight.item())

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.validated.append(pl_module.net.weight.item())


def recursion(raw: list[float], decay: float) -> float:
    average = 0.0
    for value in raw:
        average = decay * average + (1 - decay) * value
    return average


@pytest.mark.parametrize("validate_with", ["ema", "raw"])
def test_average_and_validation(fit: Any, validate_with: Any) -> None:
    ema, watch = EMA(decay=0.75, validate_with=validate_with), Watch()
    trainer = fit(ema, watch, updates=4, val_check_interval=2, num_sanity_val_steps=0)
    assert ema.average["net.weight"].dtype == torch.float32
    assert float(ema.average["net.weight"]) == pytest.approx(recursion(watch.raw, 0.75), rel=1e-6)
    expected = [recursion(watch.raw[:n], 0.75) if validate_with == "ema" else watch.raw[n - 1] for n in (2, 4)]
    assert watch.validated == pytest.approx(expected, rel=1e-6)
    # The raw weight is back after validation.
    assert trainer.lightning_module.net.weight.item() == watch.raw[-1]


def test_resumed_average_equals_uninterrupted(fit: Any, tmp_path: Path) -> None:
    whole = EMA(0.75)
    fit(whole, updates=5)
    fit(EMA(0.75), SaveLast(), updates=3)
    resumed = EMA(0.75)
    path = tmp_path / "checkpoints/last.ckpt"
    assert torch.load(path, weights_only=True)["callbacks"]["EMA"]["average"].keys() == {"net.weight"}
    fit(resumed, updates=5, ckpt_path=path)
    assert torch.equal(resumed.average["net.weight"], whole.average["net.weight"])


def test_frozen_parameters_are_left_out() -> None:
    module = toys.Tiny(toys.Net())
    module.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    ema = EMA(0.5)
    ema.on_fit_start(Trainer(logger=False, accelerator="cpu"), module)
    assert set(ema.average) == {"net.weight"}
    module.frozen.requires_grad_(True)
    with pytest.raises(ValueError, match="frozen was not trainable"):
        ema.on_train_batch_end(None, module, None, None, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decay = 1"):
        EMA(1.0)
