"""A counted update as text and as JSON values (`bench --count`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from project.planning.counted_update import WRITE, CountedUpdate, PhaseCount

PHASE_HEADS = (
    "GFLOP", "needed", "done/needed", "again", "padding", "delimiters", "dead", "adapters", "calls", "GB weights",
    "casts", "GB", "copies", "GB", "waits",
)  # fmt: skip
STEP_HEADS = ("number", "tokens", "GFLOP", "calls", "MB weights", "casts", "copies", "waits")
LEGEND = (
    "needed: by the plan's arithmetic, for the texts that were written, as if no two samples had anything in common;\n"
    "again: recomputed in the backward pass; padding: hidden tokens and ended texts; delimiters: beside latents,\n"
    "in the understanding expert; dead: branches that guide nothing; adapters: forwards;\n"
    "all these in shares of the GFLOP done. calls: operator calls that do work, on a GPU a kernel or a few each;\n"
    "waits: of the host for the device"
)


def counts_table(counted: CountedUpdate) -> str:
    """The phases, the forwards, and the places where the host waits."""
    phases = [(name, _phase_cells(phase)) for name, phase in counted.phases.items()]
    steps = [
        (
            f"{step.phase}: {step.kind}",
            [
                f"{step.number}", f"{step.tokens:.0f}", f"{step.flops / 1e9:.4g}", f"{step.calls:.0f}",
                f"{step.weight_bytes / 1e6:.4g}", f"{step.casts:.0f}", f"{step.copies:.0f}", f"{step.waits:.0f}",
            ],
        )
        for step in counted.steps
    ]  # fmt: skip
    lines = _columns(f"{counted.images} images", PHASE_HEADS, phases)
    lines += [LEGEND, "", *_columns("a forward (median)", STEP_HEADS, steps)]
    if (read := counted.weight_bytes_per_token) is not None:
        calls = next(step.calls for step in counted.steps if step.kind == WRITE)
        lines.append(f"a token of one text: {read / 1e6:.4g} MB of weights read; of all texts: {calls:.0f} calls")
    lines += ["", "waits of the host for the device"]
    for (phase, kind, place, function), number in counted.waits.most_common():
        lines.append(f"{number:>8}  {place}  {function}  ({phase}{kind and ': '}{kind})")
    return "\n".join(lines) + "\n"


def counts_record(counted: CountedUpdate) -> dict[str, Any]:
    """The same as JSON values: operations, bytes, numbers."""
    return {
        "images": counted.images,
        "text_tokens": counted.text_tokens,
        "weight_bytes_per_token": counted.weight_bytes_per_token,
        "phases": {name: {**dataclasses.asdict(phase), "ratio": phase.ratio} for name, phase in counted.phases.items()},
        "steps": [dataclasses.asdict(step) for step in counted.steps],
        "waits": [
            {"phase": phase, "kind": kind, "place": place, "function": function, "number": number}
            for (phase, kind, place, function), number in counted.waits.most_common()
        ],
    }


def _phase_cells(phase: PhaseCount) -> list[str]:
    done = phase.done
    parts = (done.recomputed_flops, phase.padding, phase.delimiters, phase.dead_branches, done.adapter_flops)
    return [
        f"{done.flops / 1e9:.4g}",
        "-" if phase.needed is None else f"{phase.needed / 1e9:.4g}",
        "-" if phase.ratio is None else f"{phase.ratio:.3f}",
        *(f"{part / done.flops:.1%}" if done.flops else "-" for part in parts),
        f"{done.calls}",
        f"{done.weight_bytes / 1e9:.4g}",
        f"{done.casts}",
        f"{done.cast_bytes / 1e9:.4g}",
        f"{done.copies}",
        f"{done.copy_bytes / 1e9:.4g}",
        f"{done.waits}",
    ]


def _columns(title: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    table = [(title, heads), *rows]
    width = max(len(name) for name, _ in table)
    widths = [max(len(cells[n]) for _, cells in table) for n in range(len(heads))]
    return [
        f"{name:<{width}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        for name, cells in table
    ]
