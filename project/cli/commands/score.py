"""Score a folder of pictures that any model drew with a published benchmark.

Writes rows.jsonl (a row for each picture as soon as it is judged), results.json (figures of both modes, coverage and
how they were made) and report.md into a folder. A command that was interrupted goes on: give it again. The exit code is
1 if pictures are missing or could not be judged, unless --allow-missing is given.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

ENDING = "Pictures"
"""Of the names of classes that are benchmarks of this command."""
PARTS = ("judge", "detector", "colors")
"""Options for who judges; each benchmark takes some of them."""


def add_arguments(parser: Any) -> None:
    """Options of `python -m project score`."""
    from project.benchmarks.geneval.colors import ColorClassifier
    from project.benchmarks.geneval.detector import Detector
    from project.benchmarks.scoring import MODES
    from project.judges.base import AnyJudge

    parser.add_argument("--benchmark", required=True, choices=sorted(_benchmarks()), help="by its name")
    parser.add_argument("--items", required=True, help="the benchmark's official file of prompts, or folder of files")
    parser.add_argument("--pictures", required=True, help="folder, in the layout that the official scripts expect")
    parser.add_argument("--out", required=True, help="folder for rows.jsonl, results.json and report.md")
    parser.add_argument("--judge", type=AnyJudge | None, help="class path of who answers questions (tiif, dpg)")
    parser.add_argument("--detector", type=Detector | None, help="class path of who finds objects (geneval)")
    parser.add_argument("--colors", type=ColorClassifier | None, help="class path of who names colours (geneval)")
    parser.add_argument("--mode", choices=list(MODES), default="official", help="of the table; results hold both")
    parser.add_argument("--limit", type=int, help="score only so many items, the first ones")
    parser.add_argument("--samples", type=int, help="pictures of each item; if not as the benchmark's protocol says")
    parser.add_argument("--model", help="name of a model's folder, where the layout has folders of several models")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures that are judged at a time")
    parser.add_argument("--allow-missing", action="store_true", help="exit code 0 for incomplete coverage too")


def run(args: Any) -> int:
    """Writes the report to stdout.

    Raises UsageError for parts that the benchmark does not take or lacks, and ValueError or FileNotFoundError for
    items, pictures or a judge that cannot be used.
    """
    from tqdm import tqdm

    from project.benchmarks.pictures_of_others.run import REPORT, RESULTS, ROWS, AskedItems, PictureRun
    from project.core.errors import ScoringFailed

    if args.batch_size < 1:
        raise ValueError(f"--batch-size {args.batch_size}: give at least 1")
    benchmark = _benchmark(args)
    out = Path(args.out)
    items = Path(args["items"])  # args.items is a method.
    asked = AskedItems.of(benchmark, items, args.limit)
    work = PictureRun(benchmark, args.benchmark, asked, Path(args.pictures), out)
    if work.missing:
        log.warning("%d of %d pictures are missing: %s", len(work.missing), len(work.pictures), work.told_missing())
    if work.left:
        benchmark.preflight(work.items)
    total = len(work.pictures) - len(work.missing)
    with tqdm(total=total, initial=total - len(work.left), unit="picture", desc=args.benchmark) as bar:
        try:
            for number in work.judge(args.batch_size):
                score = work.so_far()
                bar.set_postfix_str("" if score is None else f"score {100 * score:.2f}", refresh=False)
                bar.update(number)
        except ScoringFailed as error:
            raise ValueError(
                f"{error}\n{len(work.asked_rows)} of {total} pictures are judged, see {out / ROWS}: give the same "
                "command again to judge the rest"
            ) from error
    scored = work.finish(args.mode)
    sys.stdout.write(f"{(out / REPORT).read_text(encoding='utf-8')}\nresults: {out / RESULTS}\n")
    if scored.coverage.complete or args.allow_missing:
        return 0
    raise ValueError(
        f"{scored.coverage}: the figures are not those of the whole benchmark. Add what is missing and give the same "
        "command again, or say --allow-missing"
    )


def _benchmarks() -> dict[str, str]:
    """Name -> class of every benchmark of pictures."""
    from project import benchmarks

    return {name.removesuffix(ENDING).lower(): name for name in dir(benchmarks) if name.endswith(ENDING)}


def _benchmark(args: Any) -> Any:
    """The benchmark with its parts. Raises UsageError, see `run`."""
    from project.core.class_paths import instantiate
    from project.core.errors import UsageError

    kind = getattr(importlib.import_module("project.benchmarks"), _benchmarks()[args.benchmark])
    if strange := [name for name in PARTS if name not in kind.parts and getattr(args, name) is not None]:
        raise UsageError(
            f"--{strange[0]}: {args.benchmark} has none, it takes --{' and --'.join(kind.parts)}: leave it out"
        )
    parts: dict[str, Any] = {}
    for name, part in kind.parts.items():
        given = getattr(args, name)
        if given is None and part.standard is None:
            raise UsageError(f"{args.benchmark} needs --{name}: give its class path, e.g. project.judges.OpenAIJudge")
        parts[name] = instantiate(part.kind, {"class_path": part.standard} if given is None else given)
    return kind(**parts, samples=args.samples, model=args.model)
