"""Updates leave nothing behind: as many tensors are alive after the fourth as after the second."""

from __future__ import annotations

import gc

import pytest
import torch
from lightning import Callback

from project.callbacks.ema import EMA
from project.models.lora import LoRA
from project.objectives.grpo import GRPO
from project.planning.measured import logged_peaks
from tests.helpers.policies import TinyBagel
from tests.helpers.tiny_module import make_module, train


class Alive(Callback):
    """Counts tensors and their bytes after each update, as the next one finds them."""

    def __init__(self):
        self.counts = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
        storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
        self.counts.append((len(tensors), sum(storages.values())))


@pytest.mark.parametrize("adapters", [None, LoRA(rank=2, alpha=4)], ids=["full", "lora"])
def test_nothing_grows_over_updates(adapters):
    alive = Alive()
    module = make_module(
        policy=TinyBagel(), lora=adapters, objective=GRPO(kl_image=0.5, kl_text=0.5), num_generations=4, overlap=True
    )
    trainer = train(module, updates=5, callbacks=[EMA(decay=0.5), alive])
    first = alive.counts[2]  # the first two updates make the optimizer's state and what is logged
    assert alive.counts[2:] == [first] * 3, alive.counts
    if not torch.cuda.is_available():
        assert trainer.callback_metrics["memory/resident"] > 0.05
        assert logged_peaks(trainer.callback_metrics) == []
