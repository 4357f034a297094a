"""Supervised training of a unified model: flow matching for pictures and next-token prediction for text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from project.core.randomness import keyed_generator
from project.data.interleaved import Example, Picture, Text
from project.models.base import ModelSource
from project.models.condition_dropout import ConditionDropout, drop_conditions
from project.models.lora import LoRA, add_lora, save_adapter
from project.models.packing import Block, LatentBlock, PackedLoss, PictureBlock, TextBlock, pack, packed_loss
from project.models.transforms import normalise
from project.samplers.schedule import shift_sigma
from project.training.evaluated import EvaluatedModule
from project.training.evaluation import Evaluation
from project.training.lr_schedules import over_whole_run
from project.training.sharding import FullySharded


class UnifiedPretraining(EvaluatedModule):
    """Trains on whole examples. It made the embedded checkpoint, and can warm-start any unified model.

    Args:
        policy: the model to train.
        optimizer: optimizer of all trainable parameters.
        lr_scheduler: learning rates, stepped after every optimizer step.
        lora: adapters to train instead of all weights; then `output` is an adapter folder.
        noises: noised copies of each drawn picture; they share everything before them.
        timestep_shift: shift of the flow times, which are drawn as shift(sigmoid(normal)).
        condition_dropout: share of the drawings whose prompt and reasoning are both left out, for guidance.
        block_dropout: shares of single texts and pictures that are left out in addition, each by itself (as in BAGEL);
            None = none.
        text_weight: weight of the cross entropy.
        balance_texts: weigh each token with 1 / sqrt(tokens of its text), so that long texts do not dominate.
        output: folder that the model, or its adapter, is written to when training ends.
        output_dtype: number format of the weights written.
        seed: seed of noise and dropout.
        evaluation: how validation draws; it cannot be measured if None.
    """

    elsewhere = (
        "weights, optimizer and schedule go on; the ranks draw other examples and noise, so the losses are others"
    )

    def __init__(
        self,
        policy: ModelSource,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lora: LoRA | None = None,
        noises: int = 2,
        timestep_shift: float = 3.0,
        condition_dropout: float = 0.1,
        block_dropout: ConditionDropout | None = None,
        text_weight: float = 1.0,
        balance_texts: bool = False,
        output: str | None = None,
        output_dtype: str = "float16",
        seed: int = 0,
        evaluation: Evaluation | None = None,
    ) -> None:
        super().__init__(evaluation)
        self.strict_loading = False
        self.policy_source = policy
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        self.lora = lora
        self.noises = noises
        self.timestep_shift = timestep_shift
        self.condition_dropout = condition_dropout
        self.block_dropout = block_dropout
        self.text_weight = text_weight
        self.balance_texts = balance_texts
        self.output = output
        self.output_dtype = output_dtype
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Raises ValueError under fsdp2: how many forwards a rank makes depends on its examples."""
        super().setup(stage)
        if isinstance(self.trainer.strategy, FullySharded):
            raise ValueError("--trainer.strategy fsdp2 is not for pre-training: set it to ddp")

    def configure_model(self) -> None:
        if self.policy is None:
            self.policy = self.policy_source.load().train()
            if self.lora is not None:
                add_lora(self.policy, self.lora)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(p for p in self.parameters() if p.requires_grad)
        if self.make_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": over_whole_run(self.make_scheduler(optimizer), self.trainer.max_steps),  # type: ignore[arg-type]
                "interval": "step",
            },
        }

    def training_step(self, examples: Sequence[Example], batch_idx: int) -> Tensor:
        """Both losses, with each family of examples packed apart so that little is padded."""
        # Keyed by the step, so that a resumed run draws what it would have drawn.
        self._noise = keyed_generator(self.seed, "pre-training", self.global_rank, self.updates)
        losses = self.losses(examples)
        self.log_dict({"loss/flow_matching": losses.flow_matching, "loss/text": losses.cross_entropy}, prog_bar=True)
        return losses.flow_matching + self.text_weight * losses.cross_entropy

    def on_before_backward(self, loss: Tensor) -> None:
        """Raises ValueError on every rank if the loss of one is not finite: its gradient would make all weights NaN."""
        if self.trainer.strategy.reduce_boolean_decision(not bool(loss.isfinite()), all=False):
            raise ValueError(
                f"the loss of update {self.updates} is not finite (here {loss.item():.4g}): lower the learning rate, "
                "or go on from an earlier checkpoint"
            )

    def losses(self, examples: Sequence[Example]) -> PackedLoss:
        """Mean losses over the examples that have them."""
        families: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            families[example.task].append(example)
        text, pictures, words, drawn = [], [], 0.0, 0
        for family in families.values():
            packed = pack(self.model, self._blocks(family), balance_texts=self.balance_texts)
            loss = packed_loss(self.model, packed)
            marked = packed.weight_W.sum().item()
            noised = 0 if packed.noised_RL is None else int(packed.noised_RL.sum())
            text.append(loss.cross_entropy * marked)
            pictures.append(loss.flow_matching * noised)
            words, drawn = words + marked, drawn + noised
        return PackedLoss(
            cross_entropy=torch.stack(text).sum() / max(words, 1),
            flow_matching=torch.stack(pictures).sum() / max(drawn, 1),
        )

    def on_train_batch_end(self, *_: Any) -> None:
        self.updates += 1

    def _blocks(self, examples: Sequence[Example]) -> list[list[Block]]:
        latents = self._latents(examples)
        return [self._convert(example, latents) for example in examples]

    def _latents(self, examples: Sequence[Example]) -> Iterator[Tensor]:
        """Of the pictures that the autoencoder reads, in order; those of one size are encoded together."""
        pictures = [b.pixels for e in examples for b in e.blocks if isinstance(b, Picture) and b.role != "seen_by_vit"]
        sizes: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, picture in enumerate(pictures):
            sizes[picture.shape].append(place)
        found: dict[int, Tensor] = {}
        for places in sizes.values():
            pixels = normalise(torch.stack([torch.as_tensor(pictures[place]) for place in places]))
            found.update(zip(places, self.model.encode_image(pixels), strict=True))
        return (found[place] for place in range(len(pictures)))

    def _convert(self, example: Example, latents: Iterator[Tensor]) -> list[Block]:
        dropped = torch.rand((), generator=self._noise).item() < self.condition_dropout
        dropped = dropped and any(isinstance(b, Picture) and b.role == "drawn" for b in example.blocks)
        first = example.blocks[0]
        # Guidance compares with the state before the input text: the system prompt, if there is one.
        system = isinstance(first, Text) and first.text == self.model.defaults.think_prompt
        blocks: list[Block] = []
        for position, block in enumerate(example.blocks):
            if isinstance(block, Text):
                if not dropped or (system and position == 0):
                    blocks.append(TextBlock(ids_T=self.model.encode_text(block.text), loss=block.loss))
            elif block.role == "seen_by_vit":
                blocks.append(PictureBlock(pixels_CHW=normalise(torch.as_tensor(block.pixels))))
            else:
                grid = self.model.latent_grid(*block.pixels.shape[:2])
                clean = LatentBlock(latents_LD=next(latents), grid=grid)
                blocks += [self._noised(clean) for _ in range(self.noises)] if block.role == "drawn" else [clean]
        if self.block_dropout is None:
            return blocks
        return drop_conditions(blocks, self.block_dropout, self._noise, keep=int(system))

    def _noised(self, block: LatentBlock) -> LatentBlock:
        raw = torch.randn((), generator=self._noise)
        sigma = shift_sigma(torch.sigmoid(raw), self.timestep_shift).item()
        return replace(block, sigma=sigma, noise_LD=torch.randn(block.latents_LD.shape, generator=self._noise))

    def on_train_end(self) -> None:
        # A run that was stopped is not done: what it would write may replace a model that is.
        if self.trainer.should_stop:
            return
        if self.output is not None and self.trainer.is_global_zero:
            save = self.model.save_pretrained if self.lora is None else partial(save_adapter, self.model)
            save(Path(self.output), getattr(torch, self.output_dtype))
