"""Traced steps as text and as JSON values (`plan --trace`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from project.planning.traced_steps import REACHED, Traced

HEADS = ("TFLOP", "kernels", "GB", "ms", "of it products", "ms/products")
LEGEND = (
    f"products reach {REACHED:.0%} of the peak, memory its full bandwidth; waiting for the host comes on top.\n"
    "products: matrix products, those of adapters, and attention. fused: what torch.compile makes of the rest, if it\n"
    "fuses perfectly"
)


def traces_table(steps: Iterable[Traced], peak: float, bandwidth: float) -> str:
    """A row for each step, and below it one for each kind of kernel."""
    rows: list[tuple[str, Sequence[str]]] = []
    for step in steps:
        seconds, products = step.seconds(peak, bandwidth), step.products(peak, bandwidth)
        cells = [f"{step.flops / 1e12:.2f}", *_cells(step, seconds)]
        rows.append((step.name, [*cells, f"{products * 1e3:.1f}", f"{seconds / products:.2f}"]))
        for kind in step.kinds:
            rows.append((f"  {kind.name}", [f"{kind.flops / 1e12:.2f}", *_cells(kind, kind.seconds(peak, bandwidth))]))
    width = max(len(name) for name, _ in rows)
    lines = ["", f"{'kernels, least times':<{width}}" + "".join(f"  {head:>14}" for head in HEADS)]
    lines += [f"{name:<{width}}" + "".join(f"  {cell:>14}" for cell in cells) for name, cells in rows]
    return "\n".join([*lines, LEGEND]) + "\n"


def traces_record(steps: Iterable[Traced], peak: float, bandwidth: float) -> list[dict[str, Any]]:
    """The same as JSON values: operations, numbers, bytes, seconds."""

    def of(step: Traced) -> dict[str, Any]:
        return {
            "flops": step.flops,
            "kernels": len(step.kernels),
            "bytes": step.moved,
            "seconds": step.seconds(peak, bandwidth),
        }

    return [
        {
            "name": step.name,
            **of(step),
            "seconds_of_products": step.products(peak, bandwidth),
            "kinds": {kind.name: of(kind) for kind in step.kinds},
        }
        for step in steps
    ]


def _cells(step: Traced, seconds: float) -> list[str]:
    return [f"{len(step.kernels)}", f"{step.moved / 1e9:.1f}", f"{seconds * 1e3:.1f}"]
