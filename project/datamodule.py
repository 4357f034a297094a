"""`PromptDataModule`: prompt files -> batches of `Prompt`, in an order that resumes exactly."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden

from project.core.randomness import keyed_generator
from project.data.prompts import read_prompts
from project.trajectory import Prompt

__all__ = ["EvaluationLoader", "PromptDataModule", "PromptLoader", "read_prompts"]
NOT_DRAWN = (
    "{name}: its pictures are not drawn, because {data} gives no prompts of it: name project.PromptDataModule as "
    "class_path of data"
)


class PromptLoader:
    """Lists of P prompts, one list an update; an epoch is one shuffled pass without the rest.

    The order of an epoch is a function of (seed, epoch) alone. Every rank gets all prompts of an update: what is dealt
    to the ranks are the samples (`AlphaGRPO.rollout`).

    Lightning saves `state_dict` with a checkpoint and goes on in mid-epoch after `load_state_dict`.

    Raises ValueError if P is below 1 or more than there are prompts.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        prompts_per_update: int,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        if prompts_per_update < 1:
            raise ValueError(f"prompts_per_update = {prompts_per_update}: give at least 1")
        if len(prompts) < prompts_per_update:
            raise ValueError(
                f"{len(prompts)} training prompt(s) are fewer than prompts_per_update = {prompts_per_update}: "
                "lower it or add prompts"
            )
        self.prompts = prompts
        self.prompts_per_update = prompts_per_update
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.position = 0
        """Updates of this epoch whose prompts were handed out."""

    @property
    def sampler(self) -> PromptLoader:
        """Lightning announces a new epoch through `loader.sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def __len__(self) -> int:
        return len(self.prompts) // self.prompts_per_update

    def __iter__(self) -> Iterator[list[Prompt]]:
        order = self._order()
        while self.position < len(self):
            start = self.position * self.prompts_per_update
            chosen = order[start : start + self.prompts_per_update]
            self.position += 1
            yield [self.prompts[n] for n in chosen]
        self.set_epoch(self.epoch + 1)

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(len(self.prompts)))
        return torch.randperm(len(self.prompts), generator=keyed_generator(self.seed, "prompts", self.epoch)).tolist()

    def state_dict(self) -> dict[str, int]:
        return {
            "epoch": self.epoch,
            "position": self.position,
            "prompts": len(self.prompts),
            "prompts_per_update": self.prompts_per_update,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Raises ValueError if the position counts other prompts or updates of another size."""
        for name in ("prompts", "prompts_per_update"):
            if state[name] != self.state_dict()[name]:
                raise ValueError(
                    f"the checkpoint stopped within an epoch of {name} = {state[name]}, now it is "
                    f"{self.state_dict()[name]}: go on with the same data settings"
                )
        self.epoch, self.position = state["epoch"], state["position"]


class EvaluationLoader:
    """Lists of at most `batch_size` prompts in file order; rank r takes the prompts r, r + world_size, ...

    Every rank gets the same number of lists of the same lengths (unequal ones would hang a sharded model): the last
    prompt fills up, marked as `padding`, and `Benchmark` leaves the marked ones out.
    """

    def __init__(self, prompts: Sequence[Prompt], *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"eval_batch_size = {batch_size}: give at least 1")
        last = prompts[-1]
        filler = dataclasses.replace(last, padding=True)
        padded = [*prompts, *[filler] * (-len(prompts) % world_size)]
        self.prompts = padded[rank::world_size]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.prompts) // self.batch_size)

    def __iter__(self) -> Iterator[list[Prompt]]:
        for start in range(0, len(self.prompts), self.batch_size):
            yield self.prompts[start : start + self.batch_size]


class PromptSource(ABC):
    """A callback that brings the prompts of its own that it measures."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What its prompts are marked with (`Prompt.benchmark`)."""

    @property
    @abstractmethod
    def own_prompts(self) -> Sequence[Prompt]:
        """All of them, in order, marked by the name of the benchmark. Raises ValueError or FileNotFoundError."""

    @abstractmethod
    def batches(self, size: int) -> list[list[Prompt]]:
        """Lists of at most `size` of them that are to be drawn together; without those that were drawn already."""

    def check_drawn(self, trainer: Trainer, stage: str) -> None:
        """Raises ValueError if the data module has nothing to draw in `validate` or `test`."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        kind = {"validate": "val", "test": "test"}.get(stage)
        if kind is not None and not is_overridden(f"{kind}_dataloader", data):
            raise ValueError(NOT_DRAWN.format(name=self.name, data=type(data).__name__))


class SourceLoader:
    """The lists of a source's prompts, dealt to the ranks as whole: nothing else decides who is drawn together.

    So a picture is the same to the last digit on any number of ranks, and after an interruption. Every rank gets the
    same number of lists (unequal ones would hang a sharded model): a prompt that is marked as `padding` fills up. If
    nothing is left there is one empty list, because Lightning skips an evaluation without any.
    """

    def __init__(self, source: PromptSource, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"eval_batch_size = {batch_size}: give at least 1")
        self.source, self.batch_size, self.rank, self.world_size = source, batch_size, rank, world_size

    def __len__(self) -> int:
        return max(1, -(-len(self.source.batches(self.batch_size)) // self.world_size))

    def __iter__(self) -> Iterator[list[Prompt]]:
        batches = self.source.batches(self.batch_size) or [[]]
        filler = [dataclasses.replace(prompt, padding=True) for prompt in batches[-1][:1]]
        padded = [*batches, *[filler] * (-len(batches) % self.world_size)]
        yield from padded[self.rank :: self.world_size]


EvaluationLoaders = list[EvaluationLoader | SourceLoader]


class PromptDataModule(LightningDataModule):
    """Prompts for training and evaluation.

    Files are .jsonl, .txt (one prompt a line) or .parquet, or a folder or hub id of a dataset; a slice behind the name
    takes some of the prompts, `eval.jsonl[::4]` every fourth (see `read_prompts`).

    Args:
        train: Prompt file for `fit`.
        val: Prompt file for `validate` and for the validation within `fit`, which all benchmarks measure; or one file
            for each benchmark, by the benchmark's name.
        test: The same for `test`.
        predict: Prompt file for `predict`.
        prompts_per_update: P, the prompts of one update over all ranks.
        eval_batch_size: Prompts of one evaluation step on one rank.
        seed: Seed of the order of the training prompts.
        shuffle: Whether every epoch is shuffled anew; false = file order.
        columns: Names of the fields in the files if they differ, e.g. {prompt: caption}.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | dict[str, str] | None = None,
        test: str | dict[str, str] | None = None,
        predict: str | None = None,
        prompts_per_update: int = 8,
        eval_batch_size: int = 32,
        seed: int = 0,
        shuffle: bool = True,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.files = {"train": train, "val": val, "test": test, "predict": predict}
        """File of a stage, or files by the name of the benchmark that measures them."""
        self.prompts_per_update = prompts_per_update
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.columns = columns
        self.prompts: dict[str, list[Prompt]] = {}

    def setup(self, stage: str) -> None:
        """Reads the files of the stage. Raises ValueError or FileNotFoundError, see `read_prompts`."""
        needed = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}[stage]
        own = [prompt for source in self.sources for prompt in source.own_prompts]
        if self.files[needed] is None and not (own and needed in ("val", "test")):
            names = ", ".join(source.name for source in self.sources)
            instead = f" (`test` draws those of {names})" if own else ""
            raise ValueError(
                f"`{TrainerFn(stage).value}` needs prompts: set data.init_args.{needed} to a .jsonl or .txt "
                f"file{instead}"
            )
        for name in (needed, "val") if stage == "fit" else (needed,):
            file = self.files[name]
            if name in self.prompts:
                continue
            found: list[Prompt] = []
            if isinstance(file, str):
                found = read_prompts(file, self.columns)
            elif file is not None:
                found = [p for by, f in file.items() for p in _marked(read_prompts(f, self.columns), by)]
            self.prompts[name] = [*found, *(own if name in ("val", "test") else [])]
        if stage == "fit":
            self.train_dataloader()  # Refuses now what else would be refused after the evaluation before training.

    def train_dataloader(self) -> PromptLoader:
        return PromptLoader(
            self.prompts["train"], prompts_per_update=self.prompts_per_update, seed=self.seed, shuffle=self.shuffle
        )

    def val_dataloader(self) -> EvaluationLoaders:
        return self._evaluation("val")

    def test_dataloader(self) -> EvaluationLoaders:
        return self._evaluation("test")

    def predict_dataloader(self) -> EvaluationLoaders:
        return self._evaluation("predict")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Prompts hold no tensors, and Lightning's own transfer refuses frozen dataclasses."""
        return batch

    @property
    def sources(self) -> list[PromptSource]:
        """The callbacks that bring prompts of their own for evaluations."""
        callbacks: list[Any] = getattr(self.trainer, "callbacks", [])
        return [callback for callback in callbacks if isinstance(callback, PromptSource)]

    def _evaluation(self, name: str) -> EvaluationLoaders:
        """A loader for each file, and for each benchmark that brings its prompts."""
        rank, world_size = self._place()
        by_name = {source.name: source for source in self.sources}
        loaders: EvaluationLoaders = []
        for benchmark, prompts in groupby(self.prompts.get(name, []), lambda prompt: prompt.benchmark):
            source = by_name.get(benchmark) if benchmark is not None else None
            loaders.append(
                EvaluationLoader([*prompts], batch_size=self.eval_batch_size, rank=rank, world_size=world_size)
                if source is None
                else SourceLoader(source, batch_size=self.eval_batch_size, rank=rank, world_size=world_size)
            )
        return loaders

    def _place(self) -> tuple[int, int]:
        """(rank, world size) of this process; (0, 1) outside a trainer."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def evaluated_prompts(trainer: Trainer) -> list[Prompt]:
    """The prompts that are evaluated during training; none where validation is off, or the data are of another kind."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return data.prompts.get("val", []) if isinstance(data, PromptDataModule) and trainer.enable_validation else []


def _marked(prompts: Sequence[Prompt], benchmark: str) -> list[Prompt]:
    return [dataclasses.replace(p, benchmark=benchmark) for p in prompts]
