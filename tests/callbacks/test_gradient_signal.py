"""Signal and noise of gradients whose mean and spread are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning import LightningModule

from project.callbacks.gradient_signal import GradientSignal


class Known(LightningModule):
    """Gradients of `loud` are 3 + noise of std 1 in 400 values, those of `quiet` noise of std 2 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.loud = torch.nn.Parameter(torch.zeros(400))
        self.quiet = torch.nn.Parameter(torch.zeros(400))
        self.logged: dict[str, float] = {}

    def log(self, name: str, value: Any, **_: Any) -> None:  # type: ignore[override]
        self.logged[name] = float(value)


def measured(callback: GradientSignal, updates: int) -> dict[str, float]:
    module, generator = Known(), torch.Generator().manual_seed(0)
    callback.on_fit_start(None, module)  # type: ignore[arg-type]
    for _ in range(updates):
        module.loud.grad = 3 + torch.randn(400, generator=generator)
        module.quiet.grad = 2 * torch.randn(400, generator=generator)
        callback.on_before_optimizer_step(None, module, None)  # type: ignore[arg-type]
    return module.logged


def test_known_signal_and_noise() -> None:
    logged = measured(GradientSignal(window=50), 50)
    # |G|^2 = 400 * 9; noise 400 * 1 and 400 * 4
    assert logged["signal/loud"] == pytest.approx(9, rel=0.05)
    assert logged["signal/quiet"] == pytest.approx(0, abs=0.01)
    assert logged["signal/all"] == pytest.approx(9 / 5, rel=0.05)
    assert logged["noise_share/loud"] == pytest.approx(0.2, rel=0.05)
    assert logged["noise_share/quiet"] == pytest.approx(0.8, rel=0.05)


def test_every_window_starts_afresh() -> None:
    assert not measured(GradientSignal(window=4), 3)
    callback = GradientSignal(window=4)
    assert measured(callback, 4) == measured(callback, 4)


def test_parts_by_pattern() -> None:
    logged = measured(GradientSignal(window=4, parts=["lou"]), 4)
    assert set(logged) == {f"{kind}/{part}" for kind in ("signal", "noise_share") for part in ("all", "lou", "other")}


def test_two_updates_by_hand() -> None:
    """Gradients 1 and 3 of one value: mean 2, noise (1 + 1) / 1 = 2, signal 4 - 2 / 2 = 3."""
    module, callback = Known(), GradientSignal(window=2)
    for value in (1.0, 3.0):
        module.loud.grad = torch.zeros(400).index_fill(0, torch.tensor([7]), value)
        callback.on_before_optimizer_step(None, module, None)  # type: ignore[arg-type]
    assert module.logged == {"signal/all": 1.5, "noise_share/all": 1.0, "signal/loud": 1.5, "noise_share/loud": 1.0}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="2 updates or more"):
        GradientSignal(window=1)
    with pytest.raises(ValueError, match="no trainable parameter's name matches 'nowhere'"):
        measured(GradientSignal(parts=["nowhere"]), 1)


def test_it_sees_the_gradients_of_training(fit: Any) -> None:
    """The toy's gradient is minus the sum of its prompts' characters: two updates are enough."""
    callback = GradientSignal(window=3)
    fit(callback, updates=4)
    assert callback._updates == 1 and set(callback._sums) == {"net.weight"}
