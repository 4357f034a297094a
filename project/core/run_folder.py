"""The folder of a run: `root/name/version_N`, with everything that the run writes."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path
from typing import IO

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

LOCK = ".lock"
"""A file that every training has in its folder, and no other command."""
OF_A_START = re.compile(r"\.lock|config\.yaml|hparams\.yaml|events\.out\.tfevents\..*")
"""Files that a run writes before it has done anything."""


class RunFolder:
    """Where a run keeps `config.yaml`, `checkpoints/`, `metrics.csv`, TensorBoard events and `results.json`.

    Args:
        name: Name of the experiment; its runs are numbered `version_0`, `version_1`, ...
        root: Folder of all experiments.
    """

    def __init__(self, name: str = "default", root: str = "runs") -> None:
        self.home = Path(root) / name

    def claim(self) -> Path:
        """Makes the next `version_N` (on rank 0; other ranks take rank 0's word, see `run_folder`)."""
        if not on_rank_zero():
            return self.home / "version_of_rank_0"
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"run.root, run.name: the folder {self.home} cannot be made ({error.strerror}): name another one"
            ) from error
        version = max(versions(self.home), default=-1) + 1
        while True:
            folder = self.home / f"version_{version}"
            try:
                folder.mkdir()
            except FileExistsError:  # a run that started at the same moment
                version += 1
            else:
                return folder

    def last_checkpoint(self) -> Path:
        """`last.ckpt` of the newest run that has one. Raises FileNotFoundError if none has."""
        files = (folder / "checkpoints" / "last.ckpt" for folder in reversed(versions(self.home).values()))
        found = next((file for file in files if file.exists()), None)
        if found is None:
            raise FileNotFoundError(f"no run of {self.home} has a checkpoint: check run.root and run.name")
        return found

    def started_after(self, checkpoint: Path) -> list[Path]:
        """Folders of trainings that began later than the run of a checkpoint, oldest first."""
        number = int(checkpoint.parent.parent.name.removeprefix("version_"))
        return [folder for n, folder in versions(self.home).items() if n > number and (folder / LOCK).exists()]


def versions(home: Path) -> dict[int, Path]:
    """The run folders of an experiment by their numbers, oldest first."""
    numbers = [int(found[1]) for p in home.glob("version_*") if (found := re.fullmatch(r"version_(\d+)", p.name))]
    return {number: home / f"version_{number}" for number in sorted(numbers)}


def lock(folder: Path) -> IO[str] | None:
    """Holds the run folder for this process: two that train in one folder would overwrite each other's state.

    The lock ends with the returned file, or the process however it ends. None where the file system has no locks.
    Raises ValueError if another process holds it.
    """
    file = (folder / LOCK).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"another process trains in {folder}: let it end, or stop it") from None
    except OSError:
        file.close()
        return None
    return file


def abandon(folder: Path) -> None:
    """Removes the folder of a run that ended before it had done anything; one that holds more stays."""
    files = [*folder.iterdir()] if folder.is_dir() else []
    if all(OF_A_START.fullmatch(file.name) for file in files):
        for file in files:
            file.unlink(missing_ok=True)
        folder.rmdir()


def on_rank_zero() -> bool:
    """Whether this process is the one that writes; known before the ranks are connected."""
    return getattr(rank_zero_only, "rank", 0) == 0


def folder_of_checkpoint(ckpt_path: str | Path | None) -> Path | None:
    """The run folder that a checkpoint lies in, None if it lies in none."""
    if ckpt_path is None:
        return None
    folder = Path(ckpt_path).parent
    return folder.parent if folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file() else None


def run_folder(trainer: Trainer) -> Path:
    """The run folder on every rank. A collective call: use it in `setup`, on all ranks."""
    return Path(trainer.strategy.broadcast(trainer.default_root_dir))
