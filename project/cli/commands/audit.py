"""Measure a judge on questions about pictures whose answers are known.

Writes `results.json`, `reliability.png` and `answers.jsonl` into a folder. After an interruption, give the same command
again to go on. A judge that runs a model in this process has arguments for its device and number format, for instance
`--judge.device cuda:1 --judge.dtype bfloat16`.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

PROBES = "project.shapes.probes.shapes_probes"
"""Function of (number, seed) whose probes are asked about if nothing else is said."""
IMPORT_PATH = re.compile(r"(?!.*\.(jsonl|txt|parquet)$)[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
"""Names with dots between them; a file's name has an extension, or a folder before it."""


def add_arguments(parser: Any) -> None:
    """Options of `python -m project audit`."""
    from project.judges.base import Judge

    parser.add_argument("--judge", type=Judge, required=True, help="class path, e.g. project.judges.OpenAIJudge")
    parser.add_argument(
        "--probes",
        default=PROBES,
        help="JSONL file with `image`, `question`, `answer`, `prompt` and `tag` in each row; or the import path of a "
        "function of (number, seed) that makes probes (default: pictures of the embedded world)",
    )
    parser.add_argument("--number", type=int, default=600, help="number of probes that a function makes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the probes that a function makes")
    parser.add_argument("--batch-size", type=int, default=32, help="probes that the judge gets in one call")
    parser.add_argument("--out", required=True, help="folder for results, figure and answers")


def run(args: Any) -> int:
    """Writes the table to stdout. Raises ValueError or FileNotFoundError for bad probes or a judge that cannot work."""
    from tqdm import tqdm

    from project.core.atomic_files import atomic_file, write_atomically
    from project.core.class_paths import instantiate
    from project.core.errors import ScoringFailed
    from project.core.plots import reliability_diagram
    from project.judges.audit import ALL, ask, by_tag, read_probes, reliability, table
    from project.judges.base import Judge

    if args.batch_size < 1:
        raise ValueError(f"--batch-size {args.batch_size}: give at least 1")
    made = _is_function(args.probes)
    probes = _function(args.probes)(args.number, args.seed) if made else read_probes(args.probes)
    judge = instantiate(Judge, args.judge)  # type: ignore[type-abstract]
    judge.preflight()
    out = Path(args.out)
    asked = ask(judge, probes, out / "answers.jsonl", args.batch_size)
    answers = []
    try:
        answers.extend(tqdm(asked, total=len(probes), unit="probe", desc="audit", leave=False))
    except ScoringFailed as error:
        raise ValueError(
            f"{error}\n{len(answers)} of {len(probes)} answers are kept in {out / 'answers.jsonl'}: give the same "
            "command again to ask the rest"
        ) from error
    found = by_tag(answers)
    bins = reliability([confidence for _, confidence in answers], [probe.truth for probe, _ in answers])
    rates = {
        tag: {"false yes": of.false_positive_rate, "false no": of.false_negative_rate} for tag, of in found.items()
    }
    figure = reliability_diagram(bins.count_B, bins.confidence_B, bins.truth_B, rates)
    with atomic_file(out / "reliability.png") as stream:
        figure.savefig(stream, format="png", dpi=120)
    results = {
        "judge": judge.name,
        "probes": args.probes,
        "seed": args.seed if made else None,
        "figures": asdict(found[ALL]),
        "by_tag": {tag: asdict(of) for tag, of in found.items() if tag != ALL},
        "bins": [
            {"probes": int(count), "confidence": _number(confidence), "truth": _number(truth)}
            for count, confidence, truth in zip(bins.count_B, bins.confidence_B, bins.truth_B, strict=True)
        ],
    }
    write_atomically(out / "results.json", json.dumps(results, indent=2) + "\n")
    sys.stdout.write(f"judge: {judge.name}\n\n{table(found)}\nfigure: {out / 'reliability.png'}\n")
    return 0


def _is_function(probes: str) -> bool:
    """Whether this is an import path, not the name of a file."""
    return bool(IMPORT_PATH.fullmatch(probes)) and not Path(probes).exists()


def _function(path: str) -> Callable[[int, int], Sequence[Any]]:
    """Raises ValueError if there is none."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--probes {path}: there is no such function ({error}): give the path of a JSONL file, or a function's "
            f"import path, e.g. {PROBES}"
        ) from error
    if not callable(found):
        raise ValueError(f"--probes {path}: is no function: give one of (number, seed), e.g. {PROBES}")
    return found  # type: ignore[no-any-return]


def _number(value: float) -> float | None:
    """As JSON holds it: an empty bin has no mean."""
    return None if value != value else float(value)
