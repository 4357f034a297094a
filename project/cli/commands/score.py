"""Score a folder of pictures that any model drew with a published benchmark.

Writes rows.jsonl (a row for each picture as soon as it is judged), results.json (figures of both modes, coverage and
how they were made) and report.md into a folder. After an interruption, give the same command again. The exit code is 1
if pictures are missing or could not be judged, unless --allow-missing is given.

Each benchmark has options of its own: python -m project score --benchmark wise --help
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import logging
import sys
from argparse import ArgumentError
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project.benchmarks.pictures.base import PictureBenchmark

log = logging.getLogger(__name__)


def add_arguments(parser: Any) -> None:
    """Options of `python -m project score` that every benchmark has."""
    from project.benchmarks.scoring import MODES

    parser.add_argument(
        "--benchmark",
        required=True,
        help=f"{', '.join(sorted(_names()))}, or the class path of your own; give it before --help to see its options",
    )
    parser.add_argument("--items", required=True, help="the benchmark's official file of prompts, or folder of files")
    parser.add_argument("--pictures", required=True, help="folder, in the layout that the official scripts expect")
    parser.add_argument("--out", required=True, help="folder for rows.jsonl, results.json and report.md")
    parser.add_argument("--mode", choices=list(MODES), default="official", help="of the table; the results have both")
    parser.add_argument("--limit", type=int, help="score only this many items, from the first")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures that are judged together")
    parser.add_argument("--allow-missing", action="store_true", help="exit code 0 for incomplete coverage too")


def add_chosen_arguments(parser: Any, argv: list[str]) -> None:
    """The arguments of the benchmark that is named: who judges, and its own settings.

    Raises UsageError for a name that is no benchmark, and for a benchmark whose arguments cannot be options.
    """
    from project.core.errors import UsageError

    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--benchmark=") else [word])]
    given = [after for word, after in itertools.pairwise(words) if word == "--benchmark"]
    if not given:
        return
    kind = _class(given[-1])
    try:
        parser.add_class_arguments(kind, None)
    except (ArgumentError, ValueError) as error:
        raise UsageError(
            f"the arguments of {kind.__qualname__} cannot be options ({error}): give each a type, and a name that is "
            "none of this command's options"
        ) from error


def run(args: Any) -> int:
    """Writes the report to stdout.

    Raises UsageError for arguments that do not fit the benchmark, and ValueError or FileNotFoundError for items,
    pictures or a judge that cannot be used.
    """
    from tqdm import tqdm

    from project.benchmarks.pictures.asked import AskedItems
    from project.benchmarks.pictures.run import REPORT, RESULTS, ROWS, PictureRun
    from project.core.errors import ScoringFailed

    if args.batch_size < 1:
        raise ValueError(f"--batch-size {args.batch_size}: give at least 1")
    benchmark = _benchmark(args)
    out = Path(args.out)
    items = Path(args["items"])  # args.items is a method.
    asked = AskedItems.of(benchmark, items, args.limit)
    work = PictureRun(benchmark, asked, Path(args.pictures), out)
    if work.missing:
        log.warning("%d of %d pictures are missing: %s", len(work.missing), len(work.pictures), work.told_missing())
    if work.left:
        benchmark.preflight(work.items)
    total = len(work.pictures) - len(work.missing)
    with tqdm(total=total, initial=total - len(work.left), unit="picture", desc=benchmark.name()) as bar:
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


def _names() -> dict[str, str]:
    """Name -> class of every benchmark of pictures of the project; their files are not imported."""
    from project import benchmarks
    from project.benchmarks.pictures.base import ENDING

    return {name.removesuffix(ENDING).lower(): name for name in dir(benchmarks) if name.endswith(ENDING)}


def _class(name: str) -> type[PictureBenchmark[Any]]:
    """The benchmark of this name or class path. Raises UsageError if it is none."""
    from project.benchmarks.pictures.base import PictureBenchmark
    from project.core.errors import UsageError
    from project.core.nearest import nearest

    known = _names()
    if name not in known and "." not in name:
        raise UsageError(f"--benchmark: there is no benchmark {name!r}: {nearest(name, known)}")
    path = f"project.benchmarks.{known[name]}" if name in known else name
    module, _, attribute = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--benchmark: there is no {path} ({error}): give the class path of a benchmark") from error
    if not inspect.isclass(kind) or not issubclass(kind, PictureBenchmark):
        raise UsageError(f"--benchmark: {path} is no PictureBenchmark: name a class that is")
    if lacking := sorted(getattr(kind, "__abstractmethods__", ())):
        raise UsageError(f"--benchmark: {path} lacks {', '.join(lacking)}: write what is missing")
    return kind


def _benchmark(args: Any) -> PictureBenchmark[Any]:
    """The benchmark as the options say. Raises UsageError for arguments that do not fit its class."""
    from project.benchmarks.pictures.base import PictureBenchmark
    from project.core.class_paths import instantiate

    kind = _class(args.benchmark)
    own = {name: args[name] for name in inspect.signature(kind).parameters}
    made: PictureBenchmark[Any] = instantiate(
        PictureBenchmark,  # type: ignore[type-abstract]
        {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": own},
    )
    return made
