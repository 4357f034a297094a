"""A run that is killed again and again, and started again by the same command.

    python -m tests.helpers.mortal_run WORLD KILLS    # at random moments
    python -m tests.helpers.mortal_run WORLD          # at every moment of a save
    python -m tests.helpers.mortal_run ... beside     # which is written beside training

It prints a line for each life: how long it had, and what `last.ckpt` held then. Imports are made once: every life is a
fork of this process. WORLD is a folder of `tiny_run.write_world`. The exit code is 1 if the ends differ.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from project.__main__ import main
from project.module import AlphaGRPO
from tests.helpers import tiny_run
from tests.helpers.state import digest, saved

JUDGE = "project.shapes.judge.DetectorJudge"
EVERY = ["--trainer.callbacks+=project.callbacks.SaveLast", "--trainer.callbacks.every_n_updates=1"]
EMA = ["--trainer.callbacks+=project.callbacks.EMA"]


class Mortal:
    """A run of some updates, saved after every one."""

    def __init__(self, world: Path, name: str, updates: int, *options: str) -> None:
        self.home = world / "runs" / name
        given = [f"--trainer.max_steps={updates}", *EMA, *EVERY, *options]
        self.command = tiny_run.command(world, name, JUDGE, *given)

    def live(
        self, seconds: float | None = None, change: Callable[[], None] | None = None, trains_first: bool = False
    ) -> int:
        """Starts or goes on, and is killed after some seconds; the exit code, -9 if it was killed.

        `change` is called first in the new process. With `trains_first` the seconds are those from its first update on.
        """
        context = multiprocessing.get_context("fork")
        trains = context.Event()
        last = ["--ckpt_path=last"] if any(self.home.glob("version_*/checkpoints/last.ckpt")) else []
        process = context.Process(target=_life, args=([*self.command, *last], change, trains))
        process.start()
        if trains_first:
            assert trains.wait(120), "it does not begin to train"
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
        assert process.exitcode is not None
        return process.exitcode

    @property
    def last(self) -> Path | None:
        """The newest `last.ckpt`."""
        files = sorted(self.home.glob("version_*/checkpoints/last.ckpt"))
        return files[-1] if files else None


def _life(command: list[str], change: Callable[[], None] | None, trains: Any) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    if change is not None:
        change()
    AlphaGRPO.on_train_start = lambda module: trains.set()  # type: ignore[method-assign]
    sys.exit(main(command))


def _dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_update(update: int, act: Callable[..., None]) -> Callable[[], None]:
    """In the save of an update, `act` instead of `torch.save`."""
    save = torch.save

    def instead(checkpoint: Any, stream: Any) -> None:
        act(save, checkpoint, stream) if checkpoint["updates"] == update else save(checkpoint, stream)

    return lambda: mock.patch("torch.save", instead).start()


def before_a_byte(save: Any, checkpoint: Any, stream: Any) -> None:
    _dies()


def half_written(save: Any, checkpoint: Any, stream: Any) -> None:
    buffer = io.BytesIO()
    save(checkpoint, buffer)
    stream.write(buffer.getvalue()[: buffer.tell() // 2])
    stream.flush()
    _dies()


def _dies_around(module: str, update: int, file: str, after: bool) -> Callable[[], None]:
    """Dies before or after the call of a function that puts `file` of an update into its place."""
    real = {"os.replace": os.replace, "shutil.copyfile": shutil.copyfile}[module]

    def instead(source: Any, target: Any, *others: Any) -> Any:
        ours = Path(target).name == file and torch.load(source, weights_only=True)["updates"] == update
        if ours and not after:
            _dies()
        real(source, target, *others)
        if ours:
            _dies()

    return lambda: mock.patch(module, instead).start()


def moments(update: int) -> dict[str, Callable[[], None]]:
    """Moments within the writing of a checkpoint, by name: what lets a process die then."""
    kept = f"update_{update}.ckpt"
    return {
        "before a byte": _at_update(update, before_a_byte),
        "half written": _at_update(update, half_written),
        "the copy not begun": _dies_around("shutil.copyfile", update, f"{kept}.new", after=False),
        "the copy not in its place": _dies_around("os.replace", update, kept, after=False),
        "the copy in its place": _dies_around("os.replace", update, kept, after=True),
        "not in its place": _dies_around("os.replace", update, "last.ckpt", after=False),
        "in its place": _dies_around("os.replace", update, "last.ckpt", after=True),
    }


def killed_at_random(world: Path, kills: int, updates: int = 40, seed: int = 0) -> tuple[list[str], str, str]:
    """What each life came to, and the digests of the unbroken run and of the killed one.

    Three of four deaths come within three updates of the first one of a life, the others while it starts.
    """
    warm, whole, mortal = (Mortal(world, name, n) for name, n in (("warm", 1), ("whole", updates), ("mortal", updates)))
    assert main(warm.command) == 0  # its imports are made for all lives
    start = _seconds(warm.live)
    an_update = max(_seconds(whole.live) - start, 0.0) / (updates - 1)
    drawn = random.Random(seed)
    lives = []
    for number in range(kills):
        training = number % 4 > 0
        seconds = drawn.uniform(0.0, 3 * an_update if training else start)
        code = mortal.live(seconds, trains_first=training)
        assert code == -signal.SIGKILL, f"life {number} ended with {code}"
        held = f"update {saved(mortal.last)['updates']}" if mortal.last else "nothing: there is none"
        when = "after training began" if training else "after its start"
        lives.append(f"killed {seconds:.2f} s {when}; last.ckpt holds {held}")
    assert mortal.live() == 0 and mortal.last is not None and whole.last is not None
    return lives, digest(saved(whole.last)), digest(saved(mortal.last))


def _seconds(life: Callable[[], int]) -> float:
    began = time.monotonic()
    assert life() == 0
    return time.monotonic() - began


def killed_while_saving(world: Path) -> dict[str, str]:
    """Moment of the death -> digest of what the run ends with; "none" is the unbroken run."""
    found = {}
    for number, (moment, change) in enumerate({"none": None, **moments(2)}.items()):
        run = Mortal(world, f"saving{number}", 3, "--trainer.callbacks.keep_every_n_updates=1")
        if change is not None:
            assert run.live(change=change) == -signal.SIGKILL, moment
            assert run.last is not None and saved(run.last)["updates"] in (1, 2), moment
        assert run.live() == 0 and run.last is not None
        kept = [path.name for path in sorted(run.last.parent.iterdir())]
        assert kept == ["last.ckpt", *(f"update_{n}.ckpt" for n in (1, 2, 3))], (moment, kept)
        found[moment] = digest(saved(run.last))
    return found


if __name__ == "__main__":
    if sys.argv[-1] == "beside":
        EVERY.append(f"--trainer.callbacks.{sys.argv.pop()}=true")
    if len(sys.argv) > 2:
        found, one, two = killed_at_random(Path(sys.argv[1]), int(sys.argv[2]))
        print(*found, f"unbroken {one}", f"killed   {two}", sep="\n")
    else:
        ends = killed_while_saving(Path(sys.argv[1]))
        print(*(f"{end} {moment}" for moment, end in ends.items()), sep="\n")
        one, two = min(ends.values()), max(ends.values())
    sys.exit(one != two)
