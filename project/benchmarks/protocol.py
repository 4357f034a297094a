"""How the pictures of a published benchmark are drawn: what its protocol changes, and what a result says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Trainer

from project.benchmarks.base import updates_of
from project.core.description import described
from project.samplers.guidance import Guidance
from project.trajectory import Prompt


@dataclass(frozen=True, kw_only=True)
class GuidanceChange:
    """What a benchmark's protocol says of guidance; None = as the evaluation's task has it. See `Guidance`.

    Args:
        text: scale of the text guidance.
        image: scale of the image guidance, in edits.
        interval: (lo, hi): guidance acts at flow times lo < sigma <= hi.
        renorm: what the norm is taken over.
    """

    text: float | None = None
    image: float | None = None
    interval: tuple[float, float] | None = None
    renorm: Literal["global", "channel", "text_channel"] | None = None

    def __call__(self, guidance: Guidance) -> Guidance:
        """The guidance with what is said here. Raises ValueError as `Guidance`."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        return Guidance(**{**vars(guidance), **said})


def drawing_of(trainer: Trainer, module: Any, prompt: Prompt) -> dict[str, Any]:
    """How an evaluation draws a prompt, as JSON holds it: what makes two pictures of one prompt comparable.

    Args:
        trainer: Of the evaluation.
        module: An `EvaluatedModule`.
        prompt: One of those to draw.
    """
    evaluation, task = module.evaluation, module.task_of(prompt)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    averages = [callback for callback in callbacks if hasattr(callback, "evaluated")]  # of weights: see `EMA`
    return {
        "weights": averages[0].evaluated(module) if averages else "raw",
        "checkpoint": _file(trainer.ckpt_path),
        "updates": updates_of(module),
        "size": " and ".join(sorted({f"{t.canvas.height}x{t.canvas.width}" for t in task.turns})),
        "points": evaluation.schedule.num_steps,
        "shift": evaluation.schedule.shift,
        "guidance": [_guidance(turn.canvas.guidance) for turn in task.turns],
        "thinks": [turn.think for turn in task.turns],
        "seed": evaluation.seed,
        "precision": str(trainer.precision),
        "policy": described(getattr(module, "policy_source", None)),
        "adapters": described(getattr(getattr(module, "trainable", None), "lora", None)),
        "task": described(task),
    }


def _guidance(guidance: Guidance) -> str:
    if guidance.text <= 1:
        return "none"
    lo, hi = guidance.interval
    image = f", image {guidance.image:g}" if guidance.image > 1 else ""
    return f"text {guidance.text:g}{image}, flow times {lo:g} to {hi:g}, norm {guidance.renorm}"


def _file(path: Any) -> dict[str, Any] | None:
    """What tells a checkpoint from another one that later stands in its place."""
    if path is None:
        return None
    state = Path(path).stat()
    return {"path": str(Path(path).resolve()), "bytes": state.st_size, "changed": state.st_mtime_ns}
