"""Pre-training resumes where it stopped: examples, noise and learning rates."""

from __future__ import annotations

import torch
from lightning import Trainer

from project.lr_schedules import WarmupHoldDecay
from project.models.bagel.source import BagelCheckpoint
from project.pretraining import UnifiedPretraining
from project.shapes.datamodule import ExampleLoader, ShapesExamples


def pretrain(stop, resume=None):
    """A run of 4 steps, up to `stop` of them."""
    module = UnifiedPretraining(
        BagelCheckpoint("data/shapes/umm"),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        lr_scheduler=lambda optimizer: WarmupHoldDecay(optimizer, steps=4, warmup=1, hold=0.25),
        noises=1,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=stop,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=ShapesExamples(batches=8, batch_size=2), ckpt_path=resume, weights_only=True)
    return module, trainer


def test_two_steps_resumed_for_two_more_equal_four(tmp_path):
    whole, _ = pretrain(4)
    _, trainer = pretrain(2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, _ = pretrain(4, tmp_path / "last.ckpt")
    assert resumed.updates == 4
    for (name, ours), theirs in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_ranks_share_out_the_batches():
    loaders = [ExampleLoader(6, 1, 0, {"caption": 1.0}, {}, rank=rank, world_size=2) for rank in range(2)]
    handed = [[batch[0].blocks[2].text for batch in loader] for loader in loaders]
    assert [len(batches) for batches in handed] == [3, 3]
    assert [text for pair in zip(*handed, strict=True) for text in pair] == [
        loaders[0].batch(i)[0].blocks[2].text for i in range(6)
    ]
