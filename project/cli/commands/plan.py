"""Estimate what a configuration needs on a GPU: memory by purpose, what fits, operations and seconds of an update.

Weights are not loaded: only a checkpoint's configuration files are read (BAGEL-7B-MoT needs none at all). Bytes of
weights, gradients and caches are exact, the optimizer's are measured on a few weights, activations are estimated.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project.planning.run_plan import RunPlan

QUIET = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto", "--trainer.logger=false"]
"""A plan for another machine is made on this one."""
SURE = {
    **dict.fromkeys(
        (
            "frozen weights",
            "trained weights (fp32)",
            "gradients (fp32)",
            "autoencoder",
            "reference of the KL",
            "caches",
        ),
        "exact",
    ),
    "buckets of the gradients": "exact",
    "optimizer state": "measured",
}
"""How a figure is known; all others are estimates."""
_HOW = {True: "with gradient checkpointing", False: "without gradient checkpointing"}


def add_arguments(parser: Any) -> None:
    """Options of `python -m project plan`."""
    parser.add_argument("--config", action="append", required=True, help="configuration of `fit`; later ones win")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted option of `fit`")
    parser.add_argument("--gpu-memory", type=float, default=80.0, metavar="GB", help="memory of each GPU (10^9 bytes)")
    parser.add_argument("--ranks", type=int, default=1, help="GPUs that train")
    parser.add_argument(
        "--strategy",
        choices=["ddp", "fsdp2"],
        default="ddp",
        help="ddp: every rank holds all weights; fsdp2: ranks divide weights, gradients and optimizer state",
    )
    parser.add_argument("--prompt-tokens", type=int, default=64, help="tokens of the longest prompt")
    parser.add_argument("--reasoning-tokens", type=int, help="tokens of the reasoning; default: the limit of the task")
    parser.add_argument("--peak-tflops", type=float, help="peak of the GPU in matrix products; adds the seconds")
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of this peak that the GPU reaches")
    parser.add_argument("--bandwidth", type=float, default=2000.0, metavar="GB/S", help="bandwidth of the GPU's memory")
    parser.add_argument(
        "--trace",
        action="store_true",
        help="add the kernels of a text token, of a denoising step and of a replay with their least times; "
        "needs --peak-tflops",
    )
    parser.add_argument("--json", metavar="FILE", help="file for all figures")


def run(args: Any) -> int:
    """Writes the plan to stdout. Raises ValueError and UsageError for what `fit` would refuse."""
    from project.cli.commands.bench import options
    from project.cli.unrecorded import UnrecordedCLI
    from project.core.atomic_files import write_atomically
    from project.planning.run_plan import plan_of

    if args.ranks < 1 or args.gpu_memory <= 0:
        raise ValueError(f"--ranks {args.ranks}, --gpu-memory {args.gpu_memory}: give at least 1, and more than 0")
    if args.trace and args.peak_tflops is None:
        raise ValueError("--trace tells times: give --peak-tflops, say 989 for an H100 in bf16, and --bandwidth")
    # What Lightning says of this machine is not of interest.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    cli = UnrecordedCLI(["fit", *(f"--config={file}" for file in args.config), *options(args.set), *QUIET])
    plan = plan_of(
        cli.model,
        cli.settings.get("precision"),
        prompts=cli.datamodule.prompts_per_update,
        prompt_tokens=args.prompt_tokens,
        reasoning_tokens=args.reasoning_tokens,
        ranks=args.ranks,
        sharded=args.strategy == "fsdp2",
    )
    taken = _seconds(plan, args)
    sys.stdout.write(report(plan, args.gpu_memory * 1e9, taken, cli.model.task))
    figures = record(plan, args.gpu_memory * 1e9, taken)
    if args.trace:
        from project.cli.traces import traces_record, traces_table
        from project.planning.traced_steps import traced_steps

        speeds = args.peak_tflops * 1e12, args.bandwidth * 1e9
        steps = list(traced_steps(cli.model, plan.work, cli.settings.get("precision")))
        sys.stdout.write(traces_table(steps, *speeds))
        figures["trace"] = traces_record(steps, *speeds)
    if args.json:
        write_atomically(Path(args.json), json.dumps(figures, indent=2) + "\n")
    return 0


def report(plan: RunPlan, gpu_bytes: float, taken: Mapping[str, float] | None, task: Any) -> str:
    """The plan as text."""
    from project.planning.run_plan import usable

    memory, work = plan.memory(), plan.work
    lines = [
        f"an update of a rank: {work.samples} samples, {work.rows} drawn together, micro-batch {work.micro_batch}"
        + (f"; before them {plan.first.samples} first pictures" if plan.first else ""),
        f"a sample: {work.read} tokens read and written, {work.latents} of the picture; {work.evaluations} evaluations "
        f"({work.guided} guided), {work.trained} trained steps",
        "",
        f"{'memory of a GPU':<34}{'GB':>8}",
    ]
    lines += _parts("always", memory.always)
    for phase, parts in memory.phases.items():
        lines += _parts(f"+ {phase}", parts)
    phase = max(memory.peaks, key=memory.peaks.__getitem__)
    room = usable(gpu_bytes)
    verdict = "fits" if memory.peak <= room else "does not fit"
    lines += [
        "",
        f"peak: {memory.peak / 1e9:.1f} GB ({phase}); a GPU of {gpu_bytes / 1e9:g} GB has {room / 1e9:.1f} GB for it, "
        f"the rest is a reserve: {verdict}",
    ]
    for checkpointing in (plan.how.checkpointing, not plan.how.checkpointing):
        lines.append(_suggestion(plan, gpu_bytes, checkpointing, task))
    if fastest := plan.fastest(gpu_bytes):
        now, then = sum(plan.flops().values()), sum(plan.flops(*fastest).values())
        lines.append(f"the fastest of them is {_HOW[fastest[1]]}: {then / now:.1%} of the operations of these settings")
    lines += ["", *_work(plan, taken)]
    return "\n".join(lines) + "\n"


def record(plan: RunPlan, gpu_bytes: float, taken: Mapping[str, float] | None) -> dict[str, Any]:
    """The same as JSON values: bytes, operations, seconds."""
    import dataclasses

    memory, best, fastest = plan.memory(), plan.largest(gpu_bytes), plan.fastest(gpu_bytes)
    return {
        "work": dataclasses.asdict(plan.work),
        "always": dict(memory.always),
        "phases": {name: dict(parts) for name, parts in memory.phases.items()},
        "peak": memory.peak,
        "largest": None if best is None else dataclasses.asdict(best),
        "fastest": fastest and {**dataclasses.asdict(fastest[0]), "gradient_checkpointing": fastest[1]},
        "flops": plan.flops(),
        "seconds": None if taken is None else dict(taken),
    }


def _seconds(plan: RunPlan, args: Any) -> dict[str, float] | None:
    if args.peak_tflops is None:
        return None
    return plan.seconds(args.peak_tflops * 1e12 * args.utilisation, args.bandwidth * 1e9)


def _parts(title: str, parts: Mapping[str, float]) -> list[str]:
    lines = [f"{title:<34}{sum(parts.values()) / 1e9:>8.2f}"]
    return lines + [f"  {name:<32}{size / 1e9:>8.2f}  {SURE.get(name, 'estimate')}" for name, size in parts.items()]


def _suggestion(plan: RunPlan, gpu_bytes: float, checkpointing: bool, task: Any) -> str:
    how = _HOW[checkpointing]
    best = plan.largest(gpu_bytes, checkpointing)
    if best is None:
        return f"{how} nothing fits: take more ranks with fsdp2, or smaller pictures"
    peak = plan.memory(best, checkpointing).peak / 1e9
    from project.planning.run_plan import settings_of

    return f"{how} the largest that fits ({peak:.1f} GB): {settings_of(best, task)}"


def _work(plan: RunPlan, taken: Mapping[str, float] | None) -> list[str]:
    operations = plan.flops()
    if taken is None:
        lines = [f"{'work of an update':<34}{'TFLOP':>10}"]
        return lines + [f"  {name:<32}{count / 1e12:>10.1f}" for name, count in operations.items()]
    lines = [
        f"{'work of an update':<34}{'TFLOP':>10}{'seconds':>10}  (estimate; backward has the seconds of recomputation)"
    ]
    for name, count in operations.items():
        cell = f"{taken[name]:>10.1f}" if name in taken else ""
        lines.append(f"  {name:<32}{count / 1e12:>10.1f}{cell}")
    return [*lines, f"  {'all':<32}{sum(operations.values()) / 1e12:>10.1f}{sum(taken.values()):>10.1f}"]
