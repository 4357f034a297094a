"""fit, validate, test and predict: LightningCLI with `rewards:`, `benchmarks:` and a run folder."""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from project.benchmarks.base import Benchmark
from project.benchmarks.published import PublishedBenchmark
from project.callbacks.before_after import BeforeAfter
from project.callbacks.checkpoint import SaveLast
from project.callbacks.interrupt import GracefulStop, Interrupted
from project.callbacks.opening import Opening
from project.callbacks.progress import Progress
from project.callbacks.results import Results
from project.cli.going_on import Finished, differences, last_to_go_on
from project.cli.loggers import MetricsCSV
from project.cli.refusals import check_trainer, own_words
from project.core.atomic_files import NotWritten, write_atomically
from project.core.config_files import files_in, unknown_empty_key, unreadable
from project.core.errors import ScoringFailed, UsageError, explain
from project.core.run_folder import RunFolder, abandon, folder_of_checkpoint, lock, on_rank_zero
from project.datamodule import NOT_DRAWN
from project.rewards.base import Reward
from project.training.checkpoints import read_checkpoint

PARSER = {"exit_on_error": False, "allow_abbrev": False}
TIPS = r"Tip: |[GT]PU available: False|HPU available: False|was configured so 100%"
"""Lines of Lightning's log that say what is so anyway."""
UNMENDABLE = (
    r".*LeafSpec.*is deprecated",  # of torch, used by Lightning
    r"Found \d+ module\(s\) in eval mode",  # on purpose: dropout would part replay from rollout
    r".*does not have many workers",  # the loaders hand out what is in memory
    r"The number of training batches \(\d+\) is smaller than the logging interval",  # metrics are logged by update
    r"Checkpoint directory .* exists and is not empty",  # a run that goes on
    r"Paged optimizers are not supported on CPU",  # said in our own words
    r"FSDP2-wrapped module .* returned a view tensor",  # nothing is written into what a layer returned
)
"""Warnings that a user cannot act upon."""
_log = logging.getLogger(__name__)


def run_lightning(argv: Sequence[str]) -> int:
    """Runs `fit`, `validate`, `test` or `predict` and returns the exit code (128 + n if ended by signal n).

    Raises UsageError for a wrong command line or configuration, ValueError and FileNotFoundError for what the
    parts of the run refuse, ScoringFailed if a judge or a reward failed; an error of other origin after training
    began keeps its traceback (RuntimeError).
    """
    silence()
    try:
        with ExitStack() as held:
            ProjectCLI(list(argv), held)
    except Finished as finished:
        rank_zero_info(str(finished))
    except Interrupted as stop:
        _log.warning("%s", stop)
        return 128 + stop.signal
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    return 0


class SaveRunConfig(SaveConfigCallback):
    """Writes `config.yaml` into the run folder, without `ckpt_path`: the file starts the same run afresh.

    A run that goes on replaces it only once its checkpoint was restored: the checkpoints of a folder are read by the
    configuration beside them, and one that does not fit must not take its place.
    """

    def __init__(self, parser: LightningArgumentParser, config: Any, **kwargs: Any) -> None:
        super().__init__(parser, config, save_to_log_dir=False, **kwargs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        agree_on_checkpoint(trainer, self.config.ckpt_path if stage == "fit" else None)
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not self._file(trainer).exists():
            self._write(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._write(trainer)

    def _file(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / self.config_filename

    def _write(self, trainer: Trainer) -> None:
        config = self.config.clone()
        config.ckpt_path = None
        write_atomically(self._file(trainer), self.parser.dump(config, skip_unset=False))


class ProjectCLI(LightningCLI):
    """LightningCLI in which model and data are named by class path, and four keys are our own:

    - `rewards` and `benchmarks`: lists of callbacks of these kinds;
    - `run`: the name of the experiment and the folder of all (`RunFolder`);
    - `seed_everything` is the run's one seed: it is also the `seed` of model and data, if they have one.

    The run folder takes the place of `trainer.default_root_dir`, and of the loggers unless others are given. A `fit`
    that goes on from a checkpoint in a run folder goes on in that folder. `SaveLast`, `GracefulStop`, `Progress`,
    `Opening`, `BeforeAfter` and `Results` are added with their defaults unless `trainer.callbacks` names them. What
    must be let go when the command ends (the lock of the run folder) is put into `held`.
    """

    def __init__(self, argv: list[str], held: ExitStack | None = None) -> None:
        self.held = held or ExitStack()
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=SaveRunConfig,
            seed_everything_default=0,
            parser_kwargs=PARSER | {name: dict(PARSER) for name in self.subcommands()},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=argv,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunFolder, "run")
        parser.add_argument("--rewards", type=list[Reward], default=[], help="Rewards, by class path.")
        parser.add_argument("--benchmarks", type=list[Benchmark], default=[], help="Benchmarks, by class path.")
        for target in ("model", "data"):
            parser.link_arguments("seed_everything", f"{target}.init_args.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.files = files = files_in(args)
        if problem := unreadable(files):
            raise UsageError(problem)
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise UsageError(explain(str(error), files, self._options(args))) from error
        if problem := unknown_empty_key(files, self.config[self.config.subcommand]):
            raise UsageError(problem)

    def _parse_ckpt_path(self) -> None:
        """Finds and checks the checkpoint before anything is built. (Lightning's also takes arguments from it.)"""
        config, fits = self.config[self.config.subcommand], self.config.subcommand == "fit"
        if config.get("ckpt_path") in ("best", "hpc"):
            raise ValueError(f"--ckpt_path {config.ckpt_path}: name a file, or `last` for the newest run's")
        if config.get("ckpt_path") == "last":
            runs = RunFolder(**config.run.as_dict())
            if fits:
                last, said = last_to_go_on(runs, config.trainer, _measures(config))
                config.ckpt_path = last and str(last)
                rank_zero_info(said)
            else:
                try:
                    config.ckpt_path = str(runs.last_checkpoint())
                except FileNotFoundError as error:
                    raise FileNotFoundError(f"--ckpt_path last: {error}") from None
        check_checkpoint(config.get("ckpt_path"))
        if fits and config.get("ckpt_path") is not None:
            now = self._parser("fit").dump(config, skip_unset=False)
            lines = differences(Path(config.ckpt_path), now)
            if lines and on_rank_zero():
                _log.warning("other settings than those of the run that goes on:\n  %s", "\n  ".join(lines))

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:
            clear = own_words(error, self._get(self.config, "trainer"), self.files)
            if clear is error:
                raise
            raise clear from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = self._get(self.config_init, "trainer")
        check_trainer(self.model, trainer, self.files)
        if trainer.default_root_dir is not None:
            raise ValueError("trainer.default_root_dir: the run folder takes its place, set run.root and run.name")
        given = trainer.callbacks or []
        callbacks = [*given] if isinstance(given, list) else [given]
        callbacks += [*self._get(self.config_init, "rewards"), *self._get(self.config_init, "benchmarks")]
        self.stop = next((c for c in callbacks if isinstance(c, GracefulStop)), GracefulStop())
        defaults: list[Callback] = [self.stop]
        if self.subcommand == "fit" and trainer.enable_checkpointing is not False:
            defaults.append(SaveLast())
        if trainer.enable_progress_bar is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            defaults.append(Progress())
        if self.subcommand == "fit":
            defaults.append(Opening())
            if self._get(self.config_init, "benchmarks"):
                defaults.append(BeforeAfter())
        seeded = Results(seed=int(self._get(self.config, "seed_everything")))
        self.results = next((c for c in callbacks if isinstance(c, Results)), seeded)
        defaults.append(self.results)
        callbacks += [c for c in defaults if not any(isinstance(other, type(c)) for other in callbacks)]

        resumed = folder_of_checkpoint(self._get(self.config, "ckpt_path")) if self.subcommand == "fit" else None
        folder = resumed or self._get(self.config_init, "run").claim()
        if resumed is None and on_rank_zero():
            self.held.push(lambda kind, *_: abandon(folder) if kind is not None else None)
        if self.subcommand == "fit" and on_rank_zero() and (mine := lock(folder)) is not None:
            self.held.enter_context(mine)
        ours = {
            "callbacks": callbacks,
            "default_root_dir": str(folder),
            "logger": run_loggers(folder) if trainer.logger in (None, True) else trainer.logger,
            # `Opening` says more in one line.
            "enable_model_summary": bool(trainer.enable_model_summary),
        }
        return super().instantiate_trainer(**ours, **kwargs)

    def fit(self, **kwargs: Any) -> None:
        """What the command `fit` runs."""
        try:
            self.trainer.fit(**kwargs)
        except ScoringFailed as error:
            self.stop.raise_if_stopped(self.trainer)
            raise ScoringFailed(f"{error}\n{self.stop.message(self.trainer)}", error.agreed) from error
        except NotWritten as error:
            raise ValueError(f"{error}\n{self.stop.message(self.trainer)}") from error
        except torch.OutOfMemoryError as error:
            from project.planning.out_of_memory import out_of_memory

            raise out_of_memory(error, self.model, self.trainer, self.datamodule) from error
        except ValueError as error:
            if getattr(self.model, "updates", 0) and not _raised_here(error):
                raise RuntimeError(f"training failed after update {self.model.updates}") from error
            raise

    def test(self, **kwargs: Any) -> None:
        """What the command `test` runs: published benchmarks print tables of their own."""
        self.trainer.test(**{**kwargs, "verbose": kwargs.get("verbose", True) and not self._published})

    def validate(self, **kwargs: Any) -> None:
        """What the command `validate` runs, see `test`."""
        self.trainer.validate(**{**kwargs, "verbose": kwargs.get("verbose", True) and not self._published})

    def predict(self, **kwargs: Any) -> None:
        """What the command `predict` runs. Raises ValueError if no callback writes down what is drawn."""
        if not any(isinstance(callback, BasePredictionWriter) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError(
                "`predict` would keep nothing of what it draws: name a writer of yours under trainer.callbacks (a "
                "subclass of lightning.pytorch.callbacks.BasePredictionWriter), or use `generate` for pictures in a "
                "folder and `test` for a benchmark"
            )
        self.trainer.predict(**{**kwargs, "return_predictions": False})

    def after_test(self) -> None:
        """Shows the reports of published benchmarks. Raises ValueError if one of them is not complete."""
        for benchmark in self._published:
            if benchmark.latest is None:
                raise ValueError(NOT_DRAWN.format(name=benchmark.name, data=type(self.datamodule).__name__))
            if (report := benchmark.report) is not None:
                rank_zero_info(f"\n{report.read_text(encoding='utf-8')}\nresults: {report.parent}")
        for benchmark in self._published:
            if benchmark.incomplete and not benchmark.allow_missing:
                raise ValueError(
                    f"{benchmark.name}: {benchmark.incomplete}\nThe figures are not those of the whole benchmark. Give "
                    "the same command again to judge the rest, or set allow_missing of the benchmark"
                )

    after_validate = after_test

    @property
    def _published(self) -> list[PublishedBenchmark]:
        benchmarks = self._get(self.config_init, "benchmarks") or []
        return [benchmark for benchmark in benchmarks if isinstance(benchmark, PublishedBenchmark)]

    def after_fit(self) -> None:
        """Measures once more unless the last update was, so that `results.json` always has an `after`.

        Raises ValueError if the model gave up.
        """
        self.stop.raise_if_stopped(self.trainer)
        if reason := getattr(self.model, "gave_up", ""):
            raise ValueError(f"nothing could be learned: {reason}\n{self.stop.message(self.trainer)}")
        measured = self.results.measured_updates == getattr(self.model, "updates", None)
        if self._get(self.config_init, "benchmarks") and self.trainer.enable_validation and not measured:
            self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        if self.results.measured_updates is not None:
            rank_zero_info(f"scores:   python -m project results {self.trainer.default_root_dir}")

    def _options(self, args: Sequence[str]) -> list[str]:
        """Dotted names of all options of the subcommand."""
        parser = self._subcommand_parsers.get(args[0] if args else "")
        names = parser._option_string_actions if parser else {}
        return [n.removeprefix("--") for n in names if n.startswith("--") and not n.endswith(("+", ".help"))]


def agree_on_checkpoint(trainer: Trainer, own: str | None) -> None:
    """Raises ValueError on every rank unless all of them go on from the same checkpoint. A collective call."""
    first = trainer.strategy.broadcast(own)
    if trainer.strategy.reduce_boolean_decision(own != first, all=False):
        here = "" if own == first else f", rank {trainer.global_rank} finds {own or 'none'}"
        raise ValueError(
            f"rank 0 goes on from {first or 'no checkpoint'}, and not every rank finds the same{here}: put run.root on "
            "a file system that all nodes share; if they do share it, start again"
        )


def _measures(config: Any) -> bool:
    """Whether a run is measured at its end."""
    return bool(config.benchmarks) and config.trainer.limit_val_batches != 0


def run_loggers(folder: Path) -> list[Logger]:
    """TensorBoard events and `metrics.csv`, both directly in the run folder."""
    board = TensorBoardLogger(save_dir=folder.parent, name="", version=folder.name, default_hp_metric=False)
    return [board, MetricsCSV(folder)]


def check_checkpoint(ckpt_path: str | Path | None) -> None:
    """Raises FileNotFoundError or ValueError unless this is a complete checkpoint of a run (or None)."""
    if ckpt_path is None:
        return
    path = Path(ckpt_path)
    if not path.exists():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.ckpt"))) or "no checkpoint"
        raise FileNotFoundError(f"there is no checkpoint {path}: {path.parent} holds {there}")
    read_checkpoint(path, contents=False)


def _raised_here(error: BaseException) -> bool:
    """Whether the project's own code raised the error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and Path(frames[-1][0].f_code.co_filename).is_relative_to(Path(__file__).parents[1])


def silence() -> None:
    """Keeps to itself what Lightning says that no user could mend."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).addFilter(_is_of_use)
    for message in UNMENDABLE:
        warnings.filterwarnings("ignore", message=message)


def _is_of_use(record: logging.LogRecord) -> bool:
    return not re.search(TIPS, record.getMessage())
