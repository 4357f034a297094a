"""Batches of pre-training examples of the embedded world, and the prompts that measure it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule

from project.core.run_folder import run_folder
from project.data.interleaved import Example
from project.datamodule import EvaluationLoaders, PromptDataModule
from project.shapes.asking import Learner
from project.shapes.examples import DEFAULT_RATES, OWN_TASKS, Task, sample_example
from project.shapes.own_pictures import OwnPictures

OWN_PICTURES = "own_pictures"
"""Folder of the pool, in the run folder."""


class ExampleLoader:
    """Batches of examples. Batch i is drawn from a generator seeded with (seed, i): the same on every machine.

    Rank r takes the batches r, r + world_size, ... Lightning saves `state_dict` with a checkpoint, and a resumed run
    goes on with the batch after the last one, also on another number of ranks.

    Args:
        batches: in all, over the ranks.
        batch_size: examples of a batch.
        seed: of the examples.
        rates: how often each task comes.
        settings: of `sample_example`.
        rank, world_size: whose batches.
    """

    def __init__(
        self,
        batches: int,
        batch_size: int,
        seed: int,
        rates: Mapping[Task, float],
        settings: Mapping[str, Any],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.batches = batches
        self.batch_size = batch_size
        self.seed = seed
        self.rates = rates
        self.settings = settings
        self.rank = rank
        self.world_size = world_size
        self.position = 0
        """Batches that this rank was handed."""

    def __len__(self) -> int:
        return self.batches // self.world_size

    def __iter__(self) -> Iterator[list[Example]]:
        while self.position < len(self):
            index = self.position * self.world_size + self.rank
            self.position += 1
            yield self.batch(index)
        self.position = 0

    def batch(self, index: int) -> list[Example]:
        rng = np.random.default_rng((self.seed, index))
        return [sample_example(rng, self.rates, **self.settings) for _ in range(self.batch_size)]

    def state_dict(self) -> dict[str, int]:
        """Batches handed out over all ranks."""
        return {"position": self.position * self.world_size}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        # Rounded up: where the ranks now are not a divisor, some batches are left out, but none comes twice.
        self.position = math.ceil(state["position"] / self.world_size)


class ShapesExamples(LightningDataModule):
    """Pre-training batches drawn on the fly.

    Args:
        batches: in all (one pass; a run ends with it).
        batch_size: examples per batch and process.
        rates: how often each task comes (relative); those of `DEFAULT_RATES` if None.
        word_dropout: share of the prompt's words left out.
        indirect: share of indirect prompts among those with reasoning and those of `reflect_own`.
        own_pictures: the pictures of `reflect_own` and `questions_own`; drawn before training, into the run's folder.
        val: prompt file of the evaluation.
        eval_batch_size: prompts drawn together there.
        seed: of the examples.
        learner: a `policy` is asked about what pre-training shows; a `judge` about all compositions and words.
    """

    def __init__(
        self,
        batches: int,
        batch_size: int = 32,
        rates: dict[str, float] | None = None,
        word_dropout: float = 0.12,
        indirect: float = 0.5,
        own_pictures: OwnPictures | None = None,
        val: str | None = None,
        eval_batch_size: int = 104,
        seed: int = 0,
        learner: Learner = "policy",
    ) -> None:
        super().__init__()
        unknown = sorted(set(rates or {}) - set(DEFAULT_RATES))
        if unknown:
            raise ValueError(f"rates: unknown task {unknown[0]!r}, choose of {', '.join(DEFAULT_RATES)}")
        lacking = [task for task in OWN_TASKS if (rates or {}).get(task) and own_pictures is None]
        if lacking:
            raise ValueError(f"rates: {lacking[0]} needs pictures that a model drew: set data.init_args.own_pictures")
        self.batches = batches
        self.batch_size = batch_size
        self.seed = seed
        self.rates = {task: rates.get(task, 0.0) for task in DEFAULT_RATES} if rates else DEFAULT_RATES
        self.settings: dict[str, Any] = {"word_dropout": word_dropout, "indirect": indirect, "learner": learner}
        self.own_pictures = own_pictures
        self.prompts = PromptDataModule(val=val, eval_batch_size=eval_batch_size) if val else None

    def prepare_data(self) -> None:
        """Lightning calls this on one process of a machine, before `setup`."""
        if self.own_pictures is not None:
            self.own_pictures.draw(Path(self.trainer.default_root_dir) / OWN_PICTURES, self.seed)  # type: ignore[union-attr]

    def setup(self, stage: str) -> None:
        if self.own_pictures is not None and stage == "fit":
            folder = run_folder(self.trainer) / OWN_PICTURES  # type: ignore[arg-type]
            self.settings["own"] = self.own_pictures.read(folder)
        if self.prompts is not None:
            self.prompts.trainer = self.trainer
            self.prompts.setup("validate")

    def train_dataloader(self) -> ExampleLoader:
        return ExampleLoader(
            self.batches,
            self.batch_size,
            self.seed,
            self.rates,
            self.settings,
            rank=self.trainer.global_rank,  # type: ignore[union-attr]
            world_size=self.trainer.world_size,  # type: ignore[union-attr]
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Examples become tensors when they are packed; Lightning's own transfer refuses frozen dataclasses."""
        return batch

    def val_dataloader(self) -> EvaluationLoaders:
        return self.prompts.val_dataloader() if self.prompts is not None else []
