"""Train several arms with several seeds and write the table that compares them.

A study is a YAML file (see `project.study.plan.Study`). After an interruption, give the same command again: it keeps
finished runs and resumes the others. With the file of --archive, another machine can go on too.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project.study.runs import Run

log = logging.getLogger(__name__)


def add_arguments(parser: Any) -> None:
    """Options of `python -m project study`."""
    parser.add_argument("--config", required=True, help="the study, for instance configs/shapes/studies/demo.yaml")
    parser.add_argument("--out", help="folder for runs, table and figure; default: runs/studies/NAME")
    parser.add_argument("--archive", help="ZIP file that stores the results of finished runs")
    parser.add_argument("--report-only", action="store_true", help="table and figure of the finished runs, no training")
    parser.add_argument("--parallel", type=int, default=1, help="runs at the same time")
    parser.add_argument("--threads", type=int, help="threads of a run; default: all cores, or 1 if runs are parallel")


def run(args: Any) -> int:
    """Train, compare, write. Raises ValueError or FileNotFoundError for what cannot be, and for a run that failed."""
    from project.study.archive import pack, unpack
    from project.study.compare import compare, finished_part
    from project.study.plan import read_study
    from project.study.runs import check_prompts, run_all, runs_of

    for name in ("parallel", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: give at least 1")
    study = read_study(args.config)
    out = Path(args.out or f"runs/studies/{study.name}")
    runs = runs_of(study, out)
    archive = Path(args.archive) if args.archive else None
    if archive is not None:
        if unpacked := unpack(archive, runs):
            log.info("from %s: %s", archive, ", ".join(unpacked))
        pack(archive, runs, study.columns)
    if args.report_only:
        study, runs, missing = finished_part(study, runs)
        if missing:
            log.warning("not the whole study, made without %s", ", ".join(missing))
        _report(compare(study, runs, out, missing))
        return 0

    check_prompts(study, runs)

    def keep(run: Run) -> None:
        if archive is not None:
            pack(archive, [run], study.columns)

    threads = args.threads or (1 if args.parallel > 1 else None)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if threads else None
    # SIGTERM, and SIGHUP of a terminal that closes, become an exit like any other, so that the runs at work are told.
    before = {
        number: signal.signal(number, lambda number, _: sys.exit(128 + number))
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        run_all(runs, parallel=args.parallel, environment=environment, on_finish=keep)
    except KeyboardInterrupt:
        log.warning("stopped: the runs at work saved their state, the same command goes on")
        return 128 + signal.SIGINT
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    _report(compare(study, runs, out))
    return 0


def _report(files: Sequence[Path]) -> None:
    table, *others = files
    names = ", ".join(file.name for file in others)
    log.info("%s\nwrote %s, %s", table.read_text(encoding="utf-8"), table, names)
