"""fit, validate, test and predict: LightningCLI with `rewards:`, `benchmarks:` and a run folder."""

from __future__ import annotations

import logging
import zipfile
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from project.benchmarks.base import Benchmark
from project.callbacks.checkpoint import SaveLast
from project.callbacks.interrupt import GracefulStop, Interrupted
from project.callbacks.progress import Progress
from project.callbacks.results import Results
from project.errors import UsageError, explain
from project.loggers import MetricsCSV
from project.rewards.base import Reward
from project.run_folder import RunFolder, folder_of_checkpoint

PARSER = {"exit_on_error": False, "allow_abbrev": False}
_log = logging.getLogger(__name__)


def run_lightning(argv: Sequence[str]) -> int:
    """Runs `fit`, `validate`, `test` or `predict` and returns the exit code (128 + n if ended by signal n).

    Raises UsageError for a wrong command line or configuration, ValueError and FileNotFoundError for what the
    parts of the run refuse; an error of other origin after training began keeps its traceback (RuntimeError).
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    cli = ProjectCLI.__new__(ProjectCLI)
    try:
        cli.__init__(argv)  # type: ignore[misc]
    except Interrupted as stop:
        _log.warning("%s", stop)
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    return 128 + cli.stopped_by if cli.stopped_by else 0
