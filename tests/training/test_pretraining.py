"""Pre-training resumes where it stopped: examples, noise and learning rates."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning import Trainer

from project.data.interleaved import Example, Picture, Text
from project.models.bagel.source import BagelCheckpoint
from project.models.condition_dropout import ConditionDropout
from project.models.lora import LoRA
from project.models.packing import DroppedPicture, LatentBlock, PackedLoss, PictureBlock, TextBlock
from project.samplers.guidance import Guidance
from project.samplers.schedule import Schedule
from project.shapes.datamodule import ExampleLoader, ShapesExamples
from project.shapes.own_pictures import OwnPictures
from project.tasks.reasoning_t2i import ReasoningT2I
from project.training.lr_schedules import WarmupHoldDecay
from project.training.pretraining import UnifiedPretraining


def pretrain(stop, resume=None, schedule_steps=4):
    """A run of 4 steps, up to `stop` of them."""
    module = UnifiedPretraining(
        BagelCheckpoint("data/shapes/umm"),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        lr_scheduler=lambda optimizer: WarmupHoldDecay(optimizer, steps=schedule_steps, warmup=1, hold=0.25),
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


def test_a_loss_that_is_not_finite_ends_the_run_before_the_weights_are_lost(monkeypatch):
    usual = UnifiedPretraining.losses

    def broken(self, examples):
        loss = usual(self, examples)
        return replace(loss, cross_entropy=loss.cross_entropy * (math.nan if self.updates == 1 else 1.0))

    monkeypatch.setattr(UnifiedPretraining, "losses", broken)
    with pytest.raises(ValueError, match=r"the loss of update 1 is not finite \(here nan\): lower the learning rate"):
        pretrain(3)


def test_the_schedule_is_as_long_as_the_run():
    """After 2 steps of 2 the rate has come down to its floor, 0.02 of 1e-3."""
    _, trainer = pretrain(2, schedule_steps=None)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(2e-5)


def test_each_step_and_rank_has_noise_of_its_own(monkeypatch):
    module = UnifiedPretraining(BagelCheckpoint("data/shapes/umm"))
    zero = torch.zeros(())
    drawn = []

    def losses(examples):
        drawn.append(torch.randn((), generator=module._noise).item())
        return PackedLoss(cross_entropy=zero, flow_matching=zero)

    monkeypatch.setattr(module, "losses", losses)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    for rank, step in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0)):
        monkeypatch.setattr(UnifiedPretraining, "global_rank", rank)
        module.updates = step
        module.training_step([], 0)
    assert len({*drawn}) == 4 and drawn[-1] == drawn[0]


@pytest.mark.parametrize(("before", "after", "goes_on_with"), [(1, 1, 4), (1, 2, 4), (2, 1, 8), (2, 2, 8), (1, 3, 6)])
def test_a_run_goes_on_with_other_ranks(before, after, goes_on_with):
    """4 steps of `before` ranks have used 4 * before batches; none of them is handed out again."""

    def loader(rank, world_size):
        return ExampleLoader(24, 1, 0, {"caption": 1.0}, {}, rank=rank, world_size=world_size)

    first = loader(0, before)
    batches = iter(first)
    for _ in range(4):
        next(batches)
    for rank in range(after):
        resumed = loader(rank, after)
        resumed.load_state_dict(first.state_dict())
        wanted = resumed.batch(goes_on_with + rank)[0].blocks
        got = next(iter(resumed))[0].blocks
        assert [b.text for b in got[1:]] == [b.text for b in wanted[1:]]
        assert np.array_equal(got[0].pixels, wanted[0].pixels)


def test_ranks_share_out_the_batches():
    loaders = [ExampleLoader(6, 1, 0, {"caption": 1.0}, {}, rank=rank, world_size=2) for rank in range(2)]
    handed = [[batch[0].blocks[2].text for batch in loader] for loader in loaders]
    assert [len(batches) for batches in handed] == [3, 3]
    assert [text for pair in zip(*handed, strict=True) for text in pair] == [
        loaders[0].batch(i)[0].blocks[2].text for i in range(6)
    ]


def loaded(**settings):
    module = UnifiedPretraining(BagelCheckpoint("data/shapes/umm"), **{"noises": 1, "condition_dropout": 0, **settings})
    module.configure_model()
    module._noise = torch.Generator().manual_seed(0)
    return module


def picture(height, width, role, level=100):
    return Picture(pixels=np.full((height, width, 3), level, dtype=np.uint8), role=role)


def edit(module):
    """Of pictures of three sizes."""
    blocks = (
        Text(text=module.model_prompt),
        picture(32, 64, "clean", 200),
        picture(16, 32, "seen_by_vit"),
        Text(text="a red circle"),
        Text(text="a red circle", loss=True),
        picture(64, 32, "drawn"),
    )
    return Example(blocks=blocks, task="edit")


@pytest.fixture
def module():
    module = loaded()
    module.model_prompt = module.model.defaults.think_prompt
    return module


def test_pictures_may_differ_in_size(module):
    """Each has the latents that it has alone, in its place."""
    small = Example(blocks=(Text(text="a red circle"), picture(32, 64, "drawn", 200)), task="edit")
    first, second = module._blocks([edit(module), small])
    clean, drawn, third = (b for b in (*first, *second) if isinstance(b, LatentBlock))
    assert (clean.grid, drawn.grid, third.grid) == ((2, 4), (4, 2), (2, 4))
    for block, (height, width, level) in ((clean, (32, 64, 200)), (drawn, (64, 32, 100)), (third, (32, 64, 200))):
        alone = module.model.encode_image(torch.full((1, 3, height, width), level / 127.5 - 1))
        torch.testing.assert_close(block.latents_LD, alone[0], atol=1e-5, rtol=1e-5)
    losses = module.losses([edit(module), small])
    assert torch.isfinite(losses.flow_matching) and losses.cross_entropy > 0


def test_conditions_are_dropped_one_by_one_but_not_the_system_prompt(module):
    whole = module._blocks([edit(module)])[0]
    assert [type(b) for b in whole] == [TextBlock, LatentBlock, PictureBlock, TextBlock, TextBlock, LatentBlock]
    module.block_dropout = ConditionDropout(text=1, vit=1, vae=1)
    left = module._blocks([edit(module)])[0]
    assert [type(b) for b in left] == [TextBlock, DroppedPicture, DroppedPicture, TextBlock, LatentBlock]
    assert torch.equal(left[0].ids_T, whole[0].ids_T) and left[3].loss and left[4].noise_LD is not None


def test_texts_count_by_the_root_of_their_length(module):
    """Texts of 2 and 8 predicted tokens in families of their own: weights sqrt(2) and sqrt(8), not 2 and 8."""
    short, long = (
        Example(blocks=(Text(text=" ".join(["red"] * length), loss=True),), task=str(length)) for length in (1, 7)
    )
    alone = [module.losses([example]).cross_entropy.item() for example in (short, long)]
    both = module.losses([short, long]).cross_entropy.item()
    assert both == pytest.approx((2 * alone[0] + 8 * alone[1]) / 10, rel=1e-5)
    module.balance_texts = True
    both = module.losses([short, long]).cross_entropy.item()
    assert both == pytest.approx((2**0.5 * alone[0] + 8**0.5 * alone[1]) / (2**0.5 + 8**0.5), rel=1e-5)


# --------------------------------------------------------------------- adapters


def test_an_adapter_is_trained_and_written_and_read_over_the_checkpoint(tmp_path):
    """What is read back and added to the weights answers as the model that was trained; nothing else was changed."""
    lora = LoRA(rank=2, alpha=4, target=r"language_model\.model\.layers\.0\..*_proj(_moe_gen)?")
    module = UnifiedPretraining(
        BagelCheckpoint("data/shapes/umm"),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        lora=lora,
        noises=1,
        output=str(tmp_path / "adapter"),
        output_dtype="float32",
    )
    trainer = Trainer(accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, datamodule=ShapesExamples(batches=2, batch_size=4))
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    # What was stopped is not done, and replaces nothing.
    trainer.should_stop = True
    module.output = str(tmp_path / "half")
    module.on_train_end()
    assert not (tmp_path / "half").exists()
    base = BagelCheckpoint("data/shapes/umm").load()
    merged = BagelCheckpoint("data/shapes/umm", adapter=str(tmp_path / "adapter")).load()
    changed = [
        n for (n, new), old in zip(merged.named_parameters(), base.parameters(), strict=True) if (new != old).any()
    ]
    assert changed and all(".layers.0." in name for name in changed)
    flags = [(n, p.requires_grad) for n, p in base.named_parameters()]
    assert [(n, p.requires_grad) for n, p in merged.named_parameters()] == flags
    ids = torch.tensor([[1, 20, 30, 2]])
    with torch.no_grad():
        states = [
            m.append_tokens(m.functional_context(1), ids).keys_values[-1][0] for m in (module.model.eval(), merged)
        ]
    torch.testing.assert_close(*states, atol=1e-5, rtol=1e-5)


def test_own_pictures_are_drawn_for_the_run_and_learned_on(tmp_path):
    own = OwnPictures(
        BagelCheckpoint("data/shapes/umm"),
        ReasoningT2I(64, 64, max_tokens=16, guidance=Guidance(text=2.5, interval=(0.0, 1.0))),
        Schedule(5),
        parts=1,
        part_size=16,
        kinds={"single": 1, "relation": 1},
    )
    module = UnifiedPretraining(BagelCheckpoint("data/shapes/umm"), noises=1)
    data = ShapesExamples(batches=1, batch_size=4, rates={"reflect_own": 1.0}, own_pictures=own)
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
                      default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert (tmp_path / "own_pictures" / "0000.npz").is_file() and module.updates == 1
    stored = np.load(tmp_path / "own_pictures" / "0000.npz")["pixels"]
    for example in data.train_dataloader().batch(0):
        assert any(np.array_equal(example.blocks[1].pixels, picture) for picture in stored)


def test_reflecting_on_own_pictures_needs_a_model_that_draws_them():
    with pytest.raises(ValueError, match=r"set data\.init_args\.own_pictures"):
        ShapesExamples(batches=1, rates={"reflect_own": 1.0})
