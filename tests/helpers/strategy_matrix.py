"""Every strategy, with adapters and with all weights, for every task: two processes beside one, as a table.

    python -m tests.helpers.strategy_matrix [FOLDER]

It takes the configurations of the house as they stand, on a tiny model. Columns: the largest difference from one
process in rewards, advantages, gradient norm (relative) and weights, over three updates, beside how far the weights
moved; and whether two updates, a new start and two more equal four by hash.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback
from torch import distributed

from project.__main__ import main
from project.core.run_folder import run_folder
from tests.helpers import ROOT, ranks, tiny_run
from tests.helpers.state import digest, saved

JUDGE = "project.shapes.judge.DetectorJudge"
STRATEGIES = ("ddp", "fsdp2")
TRAINED = ("full", "lora")
TASKS = {"rt2i": (), "srr": ("srr",), "mixed": ("srr", "mixed"), "editing": ("editing",)}
"""Files of configs/shapes over the demo."""
LORA = {"lora": {"rank": 2, "alpha": 4}, "freeze": [], "parameter_groups": {}}
SIZE = 2
COMPARED, BREAK, ALL = 3, 2, 4
"""Updates: compared with one process; before the new start; of the whole run."""
TOLERANCE = {"reward": 1e-5, "advantage": 1e-4, "gradient": 1e-3, "weights": 1e-4}
"""Of the differences. AdamW makes a step of a gradient that is zero but for rounding: its learning rate is 2e-3."""


class Recorded(Callback):
    """Keeps the rewards and advantages of all samples, and the gradient's norm, of every update."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        groups = outputs["groups"]
        rewards = [pl_module.ranks.whole(group.scores.reward_N)[0] for group in groups]
        advantages = [pl_module.ranks.whole(g.advantages.image_N, g.advantages.text_N) for g in groups]
        logged = trainer.callback_metrics
        self.updates.append(
            {
                "reward": torch.cat(rewards),
                "advantage": torch.cat([part for both in advantages for part in both]),
                "gradient": logged["grad_norm"].cpu() if not logged["update/skipped"] else torch.tensor(torch.nan),
            }
        )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            torch.save(self.updates, folder / "recorded.pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is trained how; `strategy` None is one process without a strategy."""

    strategy: str | None
    trained: str
    task: str

    @property
    def name(self) -> str:
        return f"{self.strategy or 'alone'}-{self.trained}-{self.task}"

    def folder(self, world: Path, again: bool = False) -> Path:
        return world / f"runs/{self.name}{'-again' if again else ''}/version_0"

    def arguments(self, world: Path, again: bool = False) -> list[str]:
        """Of a run of all updates, or of the one that goes on from `last.ckpt`."""
        lora = [f"--config={world}/lora.yaml"] if self.trained == "lora" else []
        what = [f"--config={world}/{self.task}.yaml", *lora]
        kept = ["--trainer.callbacks+=project.callbacks.SaveLast", "--trainer.callbacks.keep_every_n_updates=1"]
        watched = ["--trainer.callbacks+=project.callbacks.EMA", f"--trainer.callbacks+={__spec__.name}.Recorded"]
        how = [] if self.strategy is None else [f"--trainer.strategy={self.strategy}", f"--trainer.devices={SIZE}"]
        last = [f"--ckpt_path={self.folder(world, again)}/checkpoints/last.ckpt"] if again else []
        given = [*what, f"--trainer.max_steps={ALL}", *kept, *watched, *how, *last]
        name = f"{self.name}{'-again' if again else ''}"
        return tiny_run.command(world, name, JUDGE, *given, over=TASKS[self.task])


def write_world(folder: Path) -> Path:
    """A tiny model; 3 prompts x 3 samples, so that groups cross ranks and ranks have unequal numbers of micro-batches.

    An epoch has all updates, so that a new start is in the midst of it.
    """
    world = tiny_run.write_world(folder)
    for name in ("train", "edit_train"):
        rows = (ROOT / f"data/shapes/{name}.jsonl").read_text(encoding="utf-8").splitlines()[: 3 * ALL]
        (world / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    (world / "lora.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"trainable": LORA}}}))
    for task in TASKS:
        settings: dict[str, Any] = {"num_generations": 3, "update": {"micro_batch_size": 2}}
        settings |= {"task": {"init_args": {"candidates": 3}}} if "srr" in TASKS[task] else {}
        prompts = "edit_train" if task == "editing" else "train"
        data = {"prompts_per_update": 3, "train": str(world / f"{prompts}.jsonl")}
        changes = {"model": {"init_args": settings}, "data": {"init_args": data}}
        (world / f"{task}.yaml").write_text(yaml.safe_dump(changes))
    return world


def train(world: Path, cells: Iterable[Cell]) -> None:
    """Trains cells, all of one number of ranks, in this process: a rank, or the only one."""
    for cell in cells:
        assert main(cell.arguments(world)) == 0, cell.name
        if cell.strategy is None:
            continue
        again = cell.folder(world, again=True)
        if distributed.get_rank() == 0:
            shutil.copytree(cell.folder(world), again)
            shutil.copy(again / f"checkpoints/update_{BREAK}.ckpt", again / "checkpoints/last.ckpt")
        distributed.barrier()
        assert main(cell.arguments(world, again=True)) == 0, cell.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table."""

    cell: Cell
    differences: dict[str, float]
    moved: float
    """Largest change of a weight."""
    resumes: bool

    @property
    def right(self) -> bool:
        return self.resumes and self.moved > 0 and all(self.differences[n] <= most for n, most in TOLERANCE.items())

    def __str__(self) -> str:
        figures = " ".join(f"{self.differences[name]:10.1e}" for name in TOLERANCE)
        what = f"{self.cell.strategy:<8} {self.cell.trained:<8} {self.cell.task:<8}"
        resumed = "equal" if self.resumes else "DIFFERS"
        return f"{what} {figures} {self.moved:10.1e} {resumed:>8} {'' if self.right else 'WRONG'}".rstrip()


HEAD = f"{'strategy':<8} {'trained':<8} {'task':<8} {''.join(f'{name:>11}' for name in TOLERANCE)}      moved  resumed"


def row(world: Path, cell: Cell) -> Row:
    """What the runs of a cell have left, beside the run of one process."""
    alone = Cell(strategy=None, trained=cell.trained, task=cell.task).folder(world)
    ours = cell.folder(world)
    pairs = list(zip(torch.load(alone / "recorded.pt"), torch.load(ours / "recorded.pt"), strict=True))[:COMPARED]
    differences = {name: max(_apart(one[name], two[name]) for one, two in pairs) for name in ("reward", "advantage")}
    norms = [(one["gradient"], two["gradient"]) for one, two in pairs]
    differences["gradient"] = max(_apart(one, two) / float(one) for one, two in norms)
    weights, one, start = (
        saved(folder / f"checkpoints/update_{n}.ckpt")["state_dict"]
        for folder, n in ((ours, COMPARED), (alone, COMPARED), (alone, 1))
    )
    assert weights.keys() == one.keys()
    differences["weights"] = max(_apart(one[name], weights[name]) for name in one)
    last = (saved(cell.folder(world, again) / "checkpoints/last.ckpt") for again in (False, True))
    whole, again = map(digest, last)
    moved = max(_apart(start[name], one[name]) for name in one)
    return Row(cell=cell, differences=differences, moved=moved, resumes=whole == again)


def _apart(one: torch.Tensor, two: torch.Tensor) -> float:
    """Largest difference; NaN counts as equal to NaN, and as infinitely far from a number."""
    if one.shape != two.shape or not torch.equal(one.isnan(), two.isnan()):
        return float("inf")
    return float((one - two).nan_to_num().abs().max())


def cells(names: Sequence[str] = ()) -> list[Cell]:
    """All of them, or those of these names."""
    found = [Cell(strategy=s, trained=w, task=t) for s, w, t in itertools.product(STRATEGIES, TRAINED, TASKS)]
    return [cell for cell in found if not names or cell.name in names]


def table(world: Path, names: Sequence[str] = ()) -> list[Row]:
    """Trains the cells (of these names) in processes of their own, and in this one what they are compared with."""
    write_world(world)
    alone = {Cell(strategy=None, trained=cell.trained, task=cell.task) for cell in cells(names)}
    train(world, sorted(alone, key=lambda cell: cell.name))
    ranks.run(SIZE, __spec__.name, str(world), *names, timeout=1200)
    return [row(world, cell) for cell in cells(names)]


if __name__ == "__main__":
    if "LOCAL_RANK" in os.environ:
        train(Path(sys.argv[1]), cells(sys.argv[2:]))
        sys.exit()
    with tempfile.TemporaryDirectory() as temporary:
        rows = table(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))
    print(HEAD, *rows, sep="\n")
    sys.exit(not all(one.right for one in rows))
