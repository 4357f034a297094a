"""Measure the updates of a configuration: seconds per phase, throughput, memory.

Nothing is evaluated, saved or logged. `--compare` also measures a changed configuration, in turns with the first.
"""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project.planning.measured import Cost

RANDOM_WEIGHTS = "model.init_args.policy.init_args.random_weights=true"
BASE = "base"


def add_arguments(parser: Any) -> None:
    """Options of `python -m project bench`."""
    parser.add_argument("--config", action="append", required=True, help="configuration of `fit`; later ones win")
    parser.add_argument("--updates", type=int, default=3, help="updates to measure, after one to warm up")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted option of `fit`")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change to compare with, e.g. model.init_args.update.micro_batch_size=8; "
        '"KEY=VALUE KEY=VALUE" for several',
    )
    parser.add_argument(
        "--random-weights", action="store_true", help="random weights: of the checkpoint, read only configuration files"
    )
    parser.add_argument(
        "--peak-tflops", type=float, help="peak of the device in matrix products; adds the share of it that is reached"
    )
    parser.add_argument(
        "--count",
        action="store_true",
        help="count the work of one more update: operations done and needed, weights read, kernels, copies, waits",
    )
    parser.add_argument("--json", metavar="FILE", help="file for all figures")


def run(args: Any) -> int:
    """Writes the table to stdout. Raises ValueError and UsageError for what `fit` would refuse."""
    if args.updates < 1:
        raise ValueError(f"--updates {args.updates}: give at least 1")
    if args.peak_tflops is not None and args.peak_tflops <= 0:
        raise ValueError(f"--peak-tflops {args.peak_tflops}: give the device's peak, say 989 for an H100 in bf16")
    common = [f"--config={config}" for config in args.config]
    common += options([*args.set, *([RANDOM_WEIGHTS] if args.random_weights else [])])
    configurations = {BASE: common}
    for change in args.compare:
        configurations[change] = [*common, *options(shlex.split(change))]

    from tqdm import tqdm

    from project.cli.counts import counts_record, counts_table
    from project.cli.unrecorded import UnrecordedCLI, rotations
    from project.core.atomic_files import write_atomically

    total = 1 if len(configurations) == 1 else args.updates
    lightning = logging.getLogger("lightning.pytorch")
    level = lightning.level
    # Every turn is a `fit` of its own, which would say the same about the machine each time.
    lightning.setLevel(logging.WARNING)
    try:
        turns = rotations(configurations, args.updates)
        *_, costs = tqdm(turns, total=total, unit="turn", desc="bench", leave=False)
    finally:
        lightning.setLevel(level)
    sys.stdout.write(table(costs))
    shares = {}
    if args.peak_tflops is not None:
        shares = {name: peak_shares(configurations[name], cost, args.peak_tflops) for name, cost in costs.items()}
        sys.stdout.write(share_table(shares, args.peak_tflops))
    counts = {}
    if args.count:
        counts = {name: UnrecordedCLI(["fit", *arguments]).count() for name, arguments in configurations.items()}
        for name, counted in counts.items():
            sys.stdout.write(f"\ncounted: {name}\n{counts_table(counted)}")
    if args.json:
        figures = {**record(costs, configurations), **({"peak_shares": shares} if shares else {})}
        if counts:
            figures["counts"] = {name: counts_record(counted) for name, counted in counts.items()}
        write_atomically(Path(args.json), json.dumps(figures, indent=2) + "\n")
    return 0


def peak_shares(arguments: Sequence[str], cost: Cost, peak_tflops: float) -> dict[str, float]:
    """Share of the matrix peak by phase: the plan's operations of an update with the texts that were written.

    What checkpointing computes again does not count. Raises ValueError for a model that has no plan.
    """
    from project.cli.unrecorded import UnrecordedCLI
    from project.planning.run_plan import plan_of

    cli = UnrecordedCLI(["fit", *arguments])
    plan = plan_of(
        cli.model,
        cli.settings.get("precision"),
        prompts=cli.datamodule.prompts_per_update,
        reasoning_tokens=round(sum(u.tokens for u in cost.updates) / max(1, sum(u.images for u in cost.updates))),
    )
    operations = {name: count for name, count in plan.flops().items() if name != "recomputation"}
    shares = {
        name: count / cost.seconds(name) / peak_tflops / 1e12
        for name, count in operations.items()
        if cost.seconds(name)
    }
    return {**shares, "total": sum(operations.values()) / cost.seconds("total") / peak_tflops / 1e12}


def share_table(shares: dict[str, dict[str, float]], peak_tflops: float) -> str:
    """The shares as text, a column for each configuration."""
    phases = list(dict.fromkeys(phase for of in shares.values() for phase in of))
    letters = [chr(ord("A") + n) for n in range(len(shares))]
    lines = ["", f"share of the matrix peak of {peak_tflops:g} TFLOP/s (planned operations, none counted twice)"]
    lines.append(f"{'':<14}" + "".join(f"  {letter:>9}" for letter in letters))
    for phase in phases:
        lines.append(f"{phase:<14}" + "".join(f"  {of.get(phase, 0.0):>9.2%}" for of in shares.values()))
    return "\n".join(lines) + "\n"


def options(assignments: Sequence[str]) -> list[str]:
    """Options of `fit`. Raises ValueError unless each is KEY=VALUE."""
    for text in assignments:
        if "=" not in text or text.startswith("-"):
            raise ValueError(f"{text!r} is no KEY=VALUE: write for instance model.init_args.update.micro_batch_size=8")
    return [f"--{text}" for text in assignments]


def table(costs: dict[str, Cost]) -> str:
    """Seconds of a mean update by phase with their share, and for every change its seconds relative to the base's."""
    base, others = costs[BASE], {name: cost for name, cost in costs.items() if name != BASE}
    letters = {name: chr(ord("B") + n) for n, name in enumerate(others)}
    heads = ["A [s]", "share", *(head for letter in letters.values() for head in (f"{letter} [s]", f"{letter}/A"))]
    rows = [("update", heads)]
    for phase in base.phases:
        cells = [f"{base.seconds(phase):.3f}", f"{base.seconds(phase) / base.seconds('total'):.1%}"]
        for cost in others.values():
            ratio = cost.ratio(base, phase)
            cells += [f"{cost.seconds(phase):.3f}", "-" if ratio is None else f"{ratio:.2f}"]
        rows.append((phase, cells))
    for name, of, digits in _FIGURES:
        cells = [f"{of(base):.{digits}f}", ""]
        for cost in others.values():
            cells += [f"{of(cost):.{digits}f}", f"{of(cost) / of(base):.2f}" if of(base) else "-"]
        rows.append((name, cells))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}" + "".join(f"  {cell:>9}" for cell in cells) for name, cells in rows]
    lines += ["", f"mean of {len(base.updates)} update(s) of {base.updates[0].images} images; {machine()}"]
    lines.append(f"A: median {median(base.totals):.3f} s, {min(base.totals):.3f} to {max(base.totals):.3f} s")
    for name, cost in others.items():
        ratios = cost.paired_ratios(base)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"{letters[name]}: {name}  (total/A of single turns: {spread})")
    return "\n".join(lines) + "\n"


def record(costs: dict[str, Cost], configurations: dict[str, list[str]]) -> dict[str, Any]:
    """The same and every single update, as JSON values."""
    base = costs[BASE]
    return {
        "machine": machine(),
        "costs": {
            name: {
                "arguments": configurations[name],
                "seconds": {phase: cost.seconds(phase) for phase in cost.phases},
                "ratio": {phase: cost.ratio(base, phase) for phase in cost.phases},
                "images_per_second": cost.images_per_second,
                "median_seconds": median(cost.totals),
                "images_per_hour": cost.images_per_hour,
                "tokens_per_second": cost.tokens_per_second,
                "peak_bytes": cost.peak_bytes,
                "updates": [
                    {"seconds": dict(update.seconds), "images": update.images, "tokens": update.tokens}
                    for update in cost.updates
                ],
            }
            for name, cost in costs.items()
        },
    }


def machine() -> str:
    """What it was measured on."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"CPU with {torch.get_num_threads()} thread(s), torch {torch.__version__}, memory is the process's"


_FIGURES: tuple[tuple[str, Callable[[Cost], float], int], ...] = (
    ("images/s", lambda cost: cost.images_per_second, 2),
    ("images/hour", lambda cost: cost.images_per_hour, 0),
    ("tokens/s", lambda cost: cost.tokens_per_second, 2),
    ("peak GB", lambda cost: cost.peak_bytes / 1e9, 2),
)
"""Rows below the phases: name, value and decimals. Images an hour are those of one process at the median update."""
