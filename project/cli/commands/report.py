"""Compare runs of scored pictures with each other and with published figures.

A run is a folder that `score --out` made, or a folder that contains such folders. For every benchmark it shows the
figures, the differences to the first run with 95% intervals (paired bootstrap over items), what papers report, and how
each run was made.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: Any) -> None:
    """Options of `python -m project report`."""
    from project.benchmarks.scoring import MODES

    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder with results.json, or a folder of such folders")
    parser.add_argument("--mode", choices=list(MODES), default="official", help="which figures are shown")
    parser.add_argument("--out", help="folder for report.md and the contact sheets; without it nothing is written")


def run(args: Any) -> int:
    """Writes the report to stdout. Raises ValueError or FileNotFoundError for folders that are no runs."""
    from project.benchmarks.comparison_report import compare_folders

    report = compare_folders([Path(folder) for folder in args.runs], args.mode)
    sys.stdout.write(report.text)
    if args.out is not None:
        sys.stdout.write(f"\nreport: {report.write(Path(args.out))}\n")
    return 0
