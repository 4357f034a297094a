"""Writes down every collective call of a rank, in order, while the ranks are given unequal work or trouble.

    python -m tests.helpers.collectives FOLDER STRATEGY SCENARIO ...

As rank r of several, into FOLDER/SCENARIO_r.txt: a line a call, as it begins. So where ranks part, and hang, the files
tell where. FOLDER/SCENARIO_r.pt says what the rank had, and how it ended.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import torch
from lightning.pytorch import Callback
from torch import distributed
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from project.callbacks.checkpoint import SaveLast
from project.callbacks.ema import EMA
from project.callbacks.interrupt import GracefulStop
from project.core.atomic_files import NotWritten
from project.core.errors import ScoringFailed
from project.judges.base import JudgeUnavailable
from project.objectives.grpo import GRPO
from project.rewards.random import RandomReward
from project.samplers.guidance import Guidance
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.rectification import LearnedStop
from project.tasks.self_reflection import SelfReflection
from project.training.sharding import whole
from tests.helpers.policies import TinyBagel
from tests.helpers.tiny_module import PROMPTS, make_module, train

GUIDANCE = Guidance(text=2.0, interval=(0.0, 1.0))
UPDATES = 3
TROUBLE = 1
"""Updates that are finished when something happens; it happens to the last rank."""


class Written(TorchDispatchMode):
    """Writes every collective call, whoever makes it: its name, the shapes and types that it moves, its group."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self.file = file

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes again as what is really called
        if func.namespace in ("c10d", "_c10d_functional"):
            moved = [f"{tuple(leaf.shape)}{leaf.dtype}" for leaf in tree_leaves(args) if torch.is_tensor(leaf)]
            groups = [_size(leaf) for leaf in tree_leaves(args) if isinstance(leaf, torch.ScriptObject)]
            plain = [leaf for leaf in tree_leaves(args) if isinstance(leaf, str | int)]
            print(func, *moved, *groups, *plain, file=self.file, flush=True)
        return func(*args, **(kwargs or {}))


def _size(group: torch.ScriptObject) -> str:
    try:
        found = distributed.ProcessGroup.unbox(group)
    except RuntimeError:  # the operation of a reduction
        return ""
    return f"group {found.group_name} of {found.size()}"


def here() -> bool:
    """Whether this is the rank that something happens to."""
    return distributed.get_rank() == distributed.get_world_size() - 1


class Observed(Callback):
    """What this rank had of the work, to show that it was unequal, and how its updates went."""

    def __init__(self) -> None:
        self.texts: list[tuple[int, ...]] = []
        self.rounds: list[int] = []
        self.survivors: list[int] = []
        self.pictures: list[int] = []
        self.skipped: list[float] = []
        self.teaches: list[bool] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        groups = outputs["groups"]
        self.texts.append(tuple(len(text.ids_T) for g in groups for t in g.trajectories for text in t.texts))
        self.rounds.append(sum(any(not t.stopped for t in g.trajectories) for g in groups if g.round))
        self.pictures.append(sum(bool(t.images) for g in groups if g.round for t in g.trajectories))
        self.survivors.append(sum(int(group.advantages.valid_N.sum()) for group in groups))
        self.teaches.append(any(group.teaches for group in groups))
        self.skipped.append(float(trainer.callback_metrics["update/skipped"]))


class Troubled(RandomReward):
    """Something happens while a rank is scored: `how` is none, nan, equal, judge or signal."""

    def __init__(self, how: str) -> None:
        super().__init__(seed=1)
        self.how = how
        self.module: Any = None

    def score(self, trajectories: Any) -> Any:
        output = super().score(trajectories)
        if not here() or self.module.updates != TROUBLE:
            return output
        if self.how == "judge":
            raise JudgeUnavailable("nobody answers")
        if self.how == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        values = {"nan": torch.nan, "equal": 0.5}
        if self.how not in values:
            return output
        return dataclasses.replace(output, reward_N=torch.full_like(output.reward_N, values[self.how]))


class NotFinite(GRPO):
    """The gradient of one rank is not finite in one update."""

    module: Any = None

    def __call__(self, inputs: Any) -> Any:
        outputs = super().__call__(inputs)
        bad = here() and self.module.updates == TROUBLE
        return dataclasses.replace(outputs, loss=outputs.loss * (torch.nan if bad else 1.0))


class OnePartStops(SelfReflection):
    """Samples that find nothing wrong after their first round: all but one rank's, or one sample of every rank."""

    whole_rank = True

    def _finds_nothing(self, trajectory: Any) -> bool:
        return not here() if self.whole_rank else trajectory.key.sample == 0


class OneSampleStops(OnePartStops):
    whole_rank = False


def refining(kind: type[OnePartStops], **changes: Any) -> SelfReflection:
    first = ReasoningT2I(height=8, width=8, max_tokens=4, guidance=GUIDANCE)
    return kind(first, rounds=3, train_first=True, max_tokens=6, guidance=GUIDANCE, credit="own", **changes)


SCENARIOS: dict[str, tuple[str, dict[str, Any]]] = {
    "texts": ("none", {}),
    "rounds": ("none", {"task": OnePartStops}),
    "stops": ("none", {"task": OneSampleStops}),
    "kept": ("none", {"task": OnePartStops, "learned_stop": LearnedStop(right_from=0.0, bonus=0.1)}),
    "dropped": ("nan", {}),
    "no_advantage": ("equal", {}),
    "not_finite": ("none", {"objective": NotFinite}),
    "judge_dies": ("judge", {}),
    "sigterm": ("signal", {}),
    "disk_full": ("none", {}),
}
"""What happens to the rewards, and what else differs."""


def run(folder: Path, strategy: str, scenario: str) -> None:
    how, changes = SCENARIOS[scenario]
    settings: dict[str, Any] = {
        "policy": TinyBagel(),
        "task": ReasoningT2I(height=8, width=8, max_tokens=12, guidance=GUIDANCE),
        "num_generations": 4,
        "micro_batch_size": 2,
    }
    if "task" in changes:
        settings["task"] = refining(changes["task"], learned_stop=changes.get("learned_stop"))
    settings |= {"objective": changes["objective"]()} if "objective" in changes else {}
    module = make_module(**settings)
    # Of three prompts the second one's samples are shared: they would have an advantage over those of the other rank.
    prompts = PROMPTS[: 2 if how == "equal" else 3]
    reward = Troubled(how)
    reward.module = module.objective.module = module
    observed, saving, average = Observed(), SaveLast(every_n_updates=100), EMA()
    ended = ""
    full = NotWritten(folder / "last.ckpt", OSError(errno.ENOSPC, "No space left on device"))
    try:
        with mock.patch.object(SaveLast, "_write", side_effect=full) if scenario == "disk_full" else nullcontext():
            train(
                module, updates=UPDATES, rewards=[reward], callbacks=[observed, average, saving, GracefulStop()],
                batches=[prompts] * 10, enable_checkpointing=True, default_root_dir=folder / scenario,
                devices=distributed.get_world_size(), strategy=strategy, use_distributed_sampler=False,
            )  # fmt: skip
    except (ScoringFailed, NotWritten) as error:
        ended = str(error)
    weights = {name: whole(p.detach()) for name, p in module.named_parameters()}
    found = {"weights": weights, "updates": module.updates, "saved": saving.saved_updates, "ended": ended}
    found["held"] = sum(tensor is not None for tensor in average.state_dict()["average"].values())
    seen = {
        name: getattr(observed, name) for name in ("texts", "rounds", "pictures", "survivors", "teaches", "skipped")
    }
    torch.save(found | seen, folder / f"{scenario}_{distributed.get_rank()}.pt")


if __name__ == "__main__":
    place, strategy_name, *names = sys.argv[1:]
    distributed.init_process_group("gloo", rank=int(os.environ["LOCAL_RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    for name in names:
        with (Path(place) / f"{name}_{distributed.get_rank()}.txt").open("w") as lines, Written(lines):
            run(Path(place), strategy_name, name)
