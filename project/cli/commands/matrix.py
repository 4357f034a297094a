"""Measure a checkpoint under several settings: with and without guidance, round by round, average and raw weights.

Runs `test` for every pair of --guidance and --weights; the rounds of one pair start from the same first pictures.
Writes matrix.md, matrix.json and matrix.png into --out, beside the folder of every pair. After an interruption, give
the same command again. The configuration names the benchmarks, e.g. configs/benchmarks/all.yaml.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
EVALUATION = "model.init_args.evaluation"
GUIDANCE, WEIGHTS = ("on", "off"), ("raw", "ema")


def add_arguments(parser: Any) -> None:
    """Options of `python -m project matrix`."""
    parser.add_argument("--config", action="append", required=True, help="configuration of `test`; later ones win")
    parser.add_argument("--ckpt_path", help="checkpoint of a run; without it the policy is measured as it was loaded")
    parser.add_argument("--out", default="runs/matrix", help="folder for the table and the folder of every pair")
    parser.add_argument("--guidance", nargs="+", choices=GUIDANCE, default=["on"], help="guidance on, off, or both")
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=["raw"], help="last or averaged weights")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of refinement, after the first pictures")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted option of `test`")


def run(args: Any) -> int:
    """Writes the table to stdout. Raises ValueError if the test of a pair fails."""
    from project.benchmarks.matrix import Arm, read_arm, write_matrix

    if args.rounds < 0:
        raise ValueError(f"--rounds {args.rounds}: give 0 or more")
    out = Path(args.out)
    arms = [Arm(guidance=g, weights=w) for g in dict.fromkeys(args.guidance) for w in dict.fromkeys(args.weights)]
    common = [f"--config={config}" for config in args.config] + [f"--{change}" for change in args.set]
    common += [] if args.ckpt_path is None else [f"--ckpt_path={args.ckpt_path}"]
    for number, arm in enumerate(arms, start=1):
        log.info("matrix: %s (%d of %d)", arm.name, number, len(arms))
        own = {
            f"{EVALUATION}.guided": json.dumps(arm.guidance == "on"),
            f"{EVALUATION}.weights": arm.weights,
            f"{EVALUATION}.refine.rounds": args.rounds,
            "run.root": out,
            "run.name": arm.name,
        }
        # A process each: what one leaves on a GPU, or of a process group, does not reach the next.
        command = [
            sys.executable,
            "-m",
            "project",
            "test",
            *common,
            *(f"--{key}={value}" for key, value in own.items()),
        ]
        if code := subprocess.run(command, check=False).returncode:
            raise ValueError(
                f"the test with {arm.name} ended with exit code {code}, its message stands above: mend it and give the "
                "same command again, what is done is kept"
            )
    table = write_matrix(out, {arm: read_arm(out / arm.name) for arm in arms})
    sys.stdout.write(f"{table}\nmatrix: {out / 'matrix.md'}, {out / 'matrix.png'}\n")
    return 0
