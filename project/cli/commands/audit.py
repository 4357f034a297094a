"""Measure a judge on questions about pictures whose answers are known.

Writes `results.json`, `reliability.png` and `answers.jsonl` into a folder. An audit that was interrupted goes on: give
the same command again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

SHAPES = "shapes"


def add_arguments(parser: Any) -> None:
    """Options of `python -m project audit`."""
    from project.judges.base import Judge

    parser.add_argument("--judge", type=Judge, required=True, help="by class path, e.g. of project.judges.openai.judge")
    parser.add_argument(
        "--probes",
        default=SHAPES,
        help="shapes: pictures of the embedded world; or a JSONL file with `image`, `question`, `answer`, `prompt` and "
        "`tag` in each row",
    )
    parser.add_argument("--number", type=int, default=600, help="of probes of the embedded world")
    parser.add_argument("--seed", type=int, default=0, help="of probes of the embedded world")
    parser.add_argument("--batch-size", type=int, default=32, help="probes that the judge gets at a time")
    parser.add_argument("--out", required=True, help="folder of results, figure and answers")


def run(args: Any) -> int:
    """Writes the table to stdout. Raises ValueError or FileNotFoundError for bad probes or a judge that cannot work."""
    from tqdm import tqdm

    from project.core.atomic_files import write_atomically
    from project.core.class_paths import instantiate
    from project.core.plots import reliability_diagram
    from project.judges.audit import ALL, ask, by_tag, read_probes, reliability, table
    from project.judges.base import Judge
    from project.shapes.probes import shapes_probes

    if args.batch_size < 1:
        raise ValueError(f"--batch-size {args.batch_size}: give at least 1")
    probes = shapes_probes(args.number, args.seed) if args.probes == SHAPES else read_probes(args.probes)
    judge = instantiate(Judge, args.judge)  # type: ignore[type-abstract]
    judge.preflight()
    out = Path(args.out)
    asked = ask(judge, probes, out / "answers.jsonl", args.batch_size)
    answers = list(tqdm(asked, total=len(probes), unit="probe", desc="audit", leave=False))
    found = by_tag(answers)
    bins = reliability([confidence for _, confidence in answers], [probe.truth for probe, _ in answers])
    rates = {
        tag: {"false yes": of.false_positive_rate, "false no": of.false_negative_rate} for tag, of in found.items()
    }
    reliability_diagram(bins.count_B, bins.confidence_B, bins.truth_B, rates).savefig(out / "reliability.png", dpi=120)
    results = {
        "judge": judge.name,
        "probes": args.probes,
        "seed": args.seed if args.probes == SHAPES else None,
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


def _number(value: float) -> float | None:
    """As JSON holds it: an empty bin has no mean."""
    return None if value != value else float(value)
