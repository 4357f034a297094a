"""Train several arms with several seeds and write the table that compares them.

A study is a YAML file (see `project.study.plan.Study`). Finished runs are kept and interrupted ones go on: give the
same command again.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def add_arguments(parser: Any) -> None:
    """Options of `python -m project study`."""
    parser.add_argument("--config", required=True, help="the study, for instance configs/shapes/studies/demo.yaml")
    parser.add_argument("--out", help="folder of its runs, table and figure; default: runs/studies/NAME")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, help="threads of a run; default: all cores, or 1 if runs are parallel")


def run(args: Any) -> int:
    """Train, compare, write. Raises ValueError or FileNotFoundError for what cannot be, and for a run that failed."""
    from project.study.compare import compare
    from project.study.plan import read_study
    from project.study.runs import run_all, runs_of

    for name in ("parallel", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: give at least 1")
    study = read_study(args.config)
    out = Path(args.out or f"runs/studies/{study.name}")
    runs = runs_of(study, out)
    threads = args.threads or (1 if args.parallel > 1 else None)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if threads else None
    # A SIGTERM becomes an exit like any other, so that the runs at work are told.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run_all(runs, parallel=args.parallel, environment=environment)
    except KeyboardInterrupt:
        log.warning("stopped: the runs at work saved their state, the same command goes on")
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)
    table = compare(study, runs, out)
    log.info("%s\nwrote %s, table.json and figure.png", table.read_text(encoding="utf-8"), table)
    return 0
