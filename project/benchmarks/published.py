"""`PublishedBenchmark`: draws what a published benchmark asks for, and judges it while drawing goes on.

It writes pictures and rows into a folder whose name depends only on weights, settings, prompts and judge. So the same
command resumes after an interruption. A picture is saved before it is judged, and a row is written as soon as its
picture is judged. Pictures that were drawn together are drawn together again.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from project.benchmarks.base import Benchmark, Outcome, Results, groups_of, updates_of
from project.benchmarks.picture_metric import PictureMetric
from project.benchmarks.pictures.asked import identity
from project.benchmarks.pictures.base import PictureBenchmark
from project.benchmarks.pictures.run import REPORT, PictureRun
from project.benchmarks.pictures.verdicts import SHEET
from project.benchmarks.protocol import GuidanceChange, drawing_of
from project.benchmarks.published_items import PublishedItems
from project.benchmarks.scoring import MODES, Mode
from project.core.errors import ScoringFailed
from project.core.growing_rows import Row
from project.core.images import read_picture
from project.core.jobs import Jobs
from project.core.ranks import ALONE, Ranks
from project.core.run_folder import run_folder
from project.datamodule import PromptSource
from project.trajectory import Group, Prompt, Trajectory

log = logging.getLogger(__name__)
WRITERS = 8
"""Threads that save the pictures of a batch."""


class PublishedBenchmark(Benchmark, PromptSource):
    """Draws the pictures of a published benchmark with the policy, and scores them as `python -m project score` does.

    The benchmark has its own prompts, so the data module needs no file for it. `evaluation.task` of the model draws
    them. If the benchmark edits pictures, they are edited with the size and the reasoning of that task.

    Figures are logged as `NAME/...`: `NAME/overall` is the headline of `mode`, and the figures of both modes are
    logged too. If pictures are refined, every round is judged: `NAME/rounds/LABEL/overall`. `NAME/rounds/LABEL/oracle`
    is the score if only the wrong pictures were refined. It is an oracle: only the benchmark knows the wrong ones.

    `test` and `validate` write into `runs/EXPERIMENT/benchmarks/NAME-DIGEST`: pictures, rows.jsonl, results.json,
    report.md, a sheet of pictures. The same command resumes there. A `fit` writes into the run's own folder,
    `evaluations/NAME_UPDATE`.

    Args:
        pictures: The benchmark, with its judge or detector.
        items: Its official file of prompts, or folder of files.
        guidance: The guidance that its protocol prescribes, where it differs from the task's.
        every: Draw every n-th item: a fixed subset for evaluations during training. 1 = all items.
        limit: Draw at most this many items.
        mode: Mode of the headline.
        overlap: Judge in a separate thread while drawing goes on.
        allow_missing: Do not fail if pictures could not be judged. Their number is reported in any case.
        name: NAME, for a run that has a benchmark twice; None = the name that `score` uses.
    """

    of_pictures = False
    right: str | None = "right"

    def __init__(
        self,
        pictures: PictureBenchmark,  # type: ignore[type-arg]
        items: str,
        guidance: GuidanceChange = GuidanceChange(),
        every: int = 1,
        limit: int | None = None,
        mode: Mode = "official",
        overlap: bool = True,
        allow_missing: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(PictureMetric(self._scored))
        self.pictures: PictureBenchmark[Any] = pictures
        self.items = PublishedItems(pictures, items, every, limit, name)
        self.mode: Mode = mode
        self.overlap = overlap
        self.allow_missing = allow_missing
        self.change_guidance = guidance if guidance != GuidanceChange() else None
        self.incomplete = ""
        """What is missing of the last evaluation; empty if nothing is."""
        self.out: Path | None = None
        """Folder of the evaluation at work, or the last one."""
        self.ranks = ALONE
        self._stage, self._home = "", Path()
        self._drawing: Callable[[], dict[str, Any]] = dict
        self._together = 1
        """Pictures that are drawn together."""
        self._runs: dict[str, PictureRun[Any]] = {}
        """By the label of the round, "" for the first pictures."""
        self._jobs: Jobs | None = None

    @property
    def name(self) -> str:
        return self.items.name

    # ----------------------------------------------------------------- prompts

    @property
    def own_prompts(self) -> Sequence[Prompt]:
        prompts = self.items.prompts
        self.source = self.items.source if self.items.edits else None
        return prompts

    def batches(self, size: int) -> list[list[Prompt]]:
        self._together = size
        lists = self._lists()
        if self._stage == "fit":
            return lists
        # The first pictures are saved last: where they are, those of all rounds are.
        there = {(p.item, p.sample) for p in self._run("").pictures if p.file is not None}
        return [batch for batch in lists if any(_place(prompt) not in there for prompt in batch)]

    def _lists(self) -> list[list[Prompt]]:
        prompts, size = self.items.prompts, self._together
        return [[*prompts[start : start + size]] for start in range(0, len(prompts), size)]

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises ValueError for a prompt that is no item."""
        for prompt in prompts:
            self.items.of(prompt)

    # ----------------------------------------------------------------- who judges

    def preflight(self) -> None:
        """Raises ValueError or FileNotFoundError, with the remedy, if nobody can judge."""
        self.pictures.preflight(self.items.asked.asked)

    @property
    def longest_wait(self) -> float:
        return sum(judge.longest_wait for judge in self.pictures.judges)

    def stop_waiting(self) -> None:
        for judge in self.pictures.judges:
            judge.stop_waiting()

    def measure(self, trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> list[Outcome]:
        """The verdict on each picture, see `PublishedItems.judged`."""
        judged = self.items.judged(trajectories)
        return [{"reward": reward, **found} for reward, found in zip(rewards, judged, strict=True)]

    def _measures(self, prompt: Prompt) -> bool:
        return prompt.benchmark == self.name

    def _computed(self, outcomes: Sequence[Outcome]) -> Results:
        return self._metric_of(outcomes).compute()

    def _metric_of(self, outcomes: Sequence[Outcome]) -> PictureMetric:
        metric = PictureMetric(self._scored)
        for outcome in outcomes:
            metric.update(outcome)
        return metric

    # ----------------------------------------------------------------- an evaluation

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.check_drawn(trainer, stage)
        self._stage, self._runs = stage, {}
        self._home = run_folder(trainer).parent / "benchmarks"
        self._drawing = lambda: drawing_of(trainer, pl_module, self.own_prompts[0])
        self.ranks = Ranks(rank=trainer.global_rank, size=trainer.world_size)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before training that the pictures can be judged."""
        if self.prompts(trainer):
            self.preflight()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.incomplete = ""
        if self._stage == "fit":
            self._start_afresh(updates_of(pl_module))
        for earlier in sorted(self._run("").out.glob("*/pictures")):
            self._run(earlier.parent.name)
        self._agree(self._begin)
        self._jobs = Jobs(self.name, beside=self.overlap)
        for number, batch in enumerate(self._lists()):  # What an earlier run drew and did not judge.
            if number % self.ranks.size == self.ranks.rank:
                for label in self._runs:
                    self._judge(label, batch)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not batch or not all(self._measures(prompt) for prompt in batch):
            return
        assert self._jobs is not None
        for group in reversed(groups_of(outputs)):
            self._save(group)
            self._judge(group.label or "", [prompt for prompt in batch if not prompt.padding])
        self._agree(self._jobs.check)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._jobs is not None
        if waiting := self._jobs.waiting:
            log.info("%s: all is drawn, %d batches are still to be judged", self.name, waiting)
        self._agree(self._jobs.finish)
        self._close()
        # A rank that drew nothing knows no rounds.
        labels = sorted({label for part in self.ranks.gather([*self._runs]) for label in part})
        computed = {label: self._computed_round(label) for label in labels}
        rounds = self._rounds(computed)
        self.latest = computed[""] | ({"rounds": rounds} if rounds else {})
        self._log(trainer, pl_module, self.latest)
        if trainer.is_global_zero:
            self._write(labels, rounds)
            self._show(trainer, updates_of(pl_module))
        if self._stage == "fit":
            self._runs = {}

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    @property
    def report(self) -> Path | None:
        """The report of the last evaluation; None if there was none, and on all ranks but the first."""
        file = None if self.out is None else self.out / REPORT
        return file if file is not None and file.is_file() and not self.ranks.rank else None

    @property
    def so_far(self) -> str:
        """For a progress bar: pictures judged, of those that are asked for, and their score."""
        if "" not in self._runs:
            return ""
        run = self._runs[""]
        score = run.so_far()
        judged = f"{self.name}: {len(run.asked_rows)}/{len(run.pictures)} judged"
        return judged if score is None else f"{judged}, score {100 * score:.2f}"

    # ----------------------------------------------------------------- steps of an evaluation

    def _run(self, label: str) -> PictureRun[Any]:
        """The pictures of a round."""
        if label not in self._runs:
            drawing = {**self._drawing(), "together": self._together}
            if self._stage != "fit":
                made = json.dumps(identity(self.pictures, self.items.asked.read, drawing), sort_keys=True)
                self.out = self._home / f"{self.name}-{sha256(made.encode()).hexdigest()[:8]}"
            assert self.out is not None
            out = self.out / label
            drawing |= {"round": label} if label else {}
            pictures = out / "pictures"
            self._runs[label] = PictureRun(self.pictures, self.items.asked, pictures, out, drawing, self.ranks.rank)
        return self._runs[label]

    def _start_afresh(self, updates: int) -> None:
        """An evaluation during training begins anew: its weights are new."""
        assert self._folder is not None
        self.out = self._folder / f"{self.name}_{updates}"
        if not self.ranks.rank:
            shutil.rmtree(self.out, ignore_errors=True)
        self.ranks.gather(None)
        self._runs = {}

    def _begin(self) -> None:
        """Checks who judges, if anything is left, and writes what is kept."""
        runs = self._runs.values()
        if self._stage != "fit" and any(run.left or run.missing for run in runs):
            self.preflight()
        self.ranks.gather(None)  # All have read the rows by then.
        if not self.ranks.rank:
            for run in runs:
                run.begin()

    def _save(self, group: Group) -> None:
        """Saves the pictures of a batch."""
        label = group.label or ""
        new = label not in self._runs
        run = self._run(label)
        if new:
            run.announce()

        def save(trajectory: Trajectory) -> None:
            picture = trajectory.image.pixels_HWC.cpu().numpy()
            sample = trajectory.prompt.columns["sample"]
            run.save(self.items.of(trajectory.prompt), sample, picture, trajectory.reasoning)

        with ThreadPoolExecutor(WRITERS) as writers:
            list(writers.map(save, [t for t in group.trajectories if not t.prompt.padding]))

    def _judge(self, label: str, batch: Sequence[Prompt]) -> None:
        """Has the pictures of a batch judged that are there."""
        assert self._jobs is not None
        run, places = self._run(label), {_place(prompt) for prompt in batch}
        items = {prompt.columns["item"]: self.items.of(prompt) for prompt in batch}

        def judge() -> None:
            run.judge_batch([p for p in run.look(items.values()) if (p.item, p.sample) in places])

        self._jobs.add(judge)

    def _agree(self, work: Callable[[], None]) -> None:
        """Does some work, and raises on every rank if it failed on one. A collective call.

        Raises ScoringFailed or ValueError.
        """
        failure: Exception | None = None
        try:
            work()
        except Exception as error:
            failure = error
        told = [message for message in self.ranks.gather(None if failure is None else str(failure)) if message]
        if not told:
            return
        self._close()
        if failure is None:
            raise ScoringFailed(f"{self.name} failed on another rank: {told[0]}", agreed=True)
        if isinstance(failure, ScoringFailed):
            kept = f"What is drawn and judged is kept in {self.out}: give the same command again to go on."
            raise type(failure)(f"{failure}\n{kept}", agreed=True) from failure
        raise failure

    def _close(self) -> None:
        """Drops what is not judged yet; a judge that is away is not waited for."""
        if self._jobs is not None:
            self._jobs.close()

    # ----------------------------------------------------------------- figures

    def _computed_round(self, label: str) -> Results:
        """The figures of a round, of all ranks."""
        run = self._run(label)
        unjudged = {name: why for part in self.ranks.gather(run.unjudged) for name, why in part.items()}
        metric = self._metric_of(run.asked_rows)
        figures = metric.compute()
        run.take(metric.rows, unjudged)
        return figures

    def _scored(self, rows: Sequence[Row]) -> Results:
        """Headline, figures of both modes, and coverage."""
        scored = {mode: self.pictures.score(self.items.asked.asked, rows, mode) for mode in MODES}
        return {
            "overall": scored[self.mode].headline,
            **{mode: dict(found.figures) for mode, found in scored.items()},
            "coverage": scored["strict"].coverage.share,
        }

    def _rounds(self, computed: Mapping[str, Results]) -> Results:
        """Label -> headline of that round, and with the oracle's gate."""
        chosen = {(row["id"], row["sample"]): row for row in self._run("").asked_rows}
        rounds: Results = {}
        for label, figures in computed.items():
            if not label:
                continue
            for row in self._run(label).asked_rows:
                before = chosen.get((row["id"], row["sample"]))
                if before is None or self.pictures.worth(self.items.by_id[row["id"]], before) < 1:
                    chosen[row["id"], row["sample"]] = row
            oracle = self._scored([*chosen.values()])["overall"]
            rounds[label] = {key: figures[key] for key in ("overall", "coverage")} | {"oracle": {"overall": oracle}}
        return rounds

    def _write(self, labels: Sequence[str], rounds: Results) -> None:
        """Writes the results of all rounds, and says what is missing."""
        told = []
        for label in labels:
            run = self._run(label)
            run.begin()
            scored = run.finish(self.mode, None if label else rounds)
            if not scored.coverage.complete:
                unjudged = f"; not judged: {run.told_unjudged()}" if run.unjudged else ""
                told.append(f"{f'{label}: ' if label else ''}{scored.coverage}{unjudged}")
        self.incomplete = "; ".join(told)
        if self.incomplete:
            log.warning("%s: %s", self.name, self.incomplete)

    def _show(self, trainer: Trainer, updates: int) -> None:
        """Good and bad pictures in TensorBoard."""
        if self.out is None or not (self.out / SHEET).is_file():
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(self.name, read_picture(self.out / SHEET), updates, dataformats="HWC")


def _place(prompt: Prompt) -> tuple[str, int]:
    return prompt.columns["item"], prompt.columns["sample"]
