"""What Lightning and its environment refuse, with a remedy that works here."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from project.core.config_files import place_of
from project.core.errors import UsageError, explain
from project.training.evaluated import EvaluatedModule
from project.training.strategies import check_strategy

MANUAL = {
    "gradient_clip_val": "model.init_args.gradient_clip is the largest norm of the gradient",
    "gradient_clip_algorithm": "model.init_args.gradient_clip is the largest norm of the gradient",
    "accumulate_grad_batches": (
        "an update has all samples of its prompts whatever model.init_args.micro_batch_size is; set that for the "
        "memory, and data.init_args.prompts_per_update for the size of an update"
    ),
}
"""Options of the trainer that a module which makes its own optimizer steps cannot use, and what there is instead."""
LAUNCHERS = "lightning/fabric/plugins/environments/"
VARIABLES = {
    "slurm.py": r"SLURM_(NTASKS\w*|PROCID|LOCALID|NODEID|NNODES|JOB_NAME)",
    "torchelastic.py": r"(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)|TORCHELASTIC_RUN_ID",
    "lightning.py": r"LOCAL_RANK|NODE_RANK|GROUP_RANK|WORLD_SIZE|MASTER_(ADDR|PORT)",
    "lsf.py": r"LSB_\w+|JSM_\w+",
}
"""Environment variables that the files of Lightning's launchers read."""


def check_trainer(module: LightningModule, options: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Raises UsageError for a strategy that does not train the module, and for trainer options that the module has
    options of its own for."""
    if isinstance(module, EvaluatedModule):
        try:
            check_strategy(options["strategy"])
        except ValueError as error:
            place = place_of(files, "strategy", group="trainer", value=str(options["strategy"]))
            raise UsageError(f"{place}{error}") from None
    if module.automatic_optimization:
        return
    for name, instead in MANUAL.items():
        value = options.get(name)
        if value and not (name == "accumulate_grad_batches" and value == 1):
            place = place_of(files, name, group="trainer", value=str(value))
            raise UsageError(f"{place}trainer.{name} = {value}: the model makes its own optimizer steps: {instead}")


def own_words(error: Exception, options: Mapping[str, Any], files: Sequence[Path]) -> Exception:
    """The error to raise in the place of one that came while the parts of a run were made.

    It is what the class that was being made said, without what jsonargparse wraps around it; of what Lightning says
    about the trainer with these `options`, and about the environment, it is the remedy.
    """
    if launcher := _launcher(error):
        return ValueError(launcher)
    if re.search("No supported gpu backend|accelerator is not available", str(error)):
        place = place_of(files, "accelerator", group="trainer", value=str(options.get("accelerator")))
        return UsageError(
            f"{place}trainer.accelerator is {options.get('accelerator')!r}, and torch finds no such device here: set "
            "it to cpu or auto, or install a build of torch for the device, and its driver"
        )
    cause: BaseException | None = error
    while cause is not None and re.match(r"Does not validate|Problem with|Parser key", str(cause)):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ValueError | FileNotFoundError) and not re.match(r"Expected an? |Not a valid", str(cause)):
        return cause
    return error if cause is error else UsageError(explain(str(error), files))


def _launcher(error: Exception) -> str | None:
    """What to do about an error of Lightning's code for SLURM, torchrun and the like; None for another error."""
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or LAUNCHERS not in frames[-1]:
        return None
    file = Path(frames[-1]).name
    names = sorted(name for name in os.environ if re.fullmatch(VARIABLES.get(file, r"(?!)"), name))
    found = ", ".join(f"{name}={os.environ[name]}" for name in names) or "the launcher's variables"
    if file == "slurm.py":
        return (
            f"{found} in the environment: this is a SLURM allocation for several processes, and Lightning would be one "
            "of them. To train in this process alone: `env -u SLURM_NTASKS python -m project ...`; to train in all: "
            "--ntasks-per-node in place of --ntasks, and `srun python -m project ...`"
        )
    return f"{found} in the environment do not fit together ({error}): unset them, or start by the launcher"
