"""Prompts in, pictures and trajectories out: what `python -m project generate` does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from project.guidance import Guidance
from project.models.base import Defaults, UnifiedModel
from project.samplers.flow_ode import FlowODE
from project.tasks.reasoning_t2i import ReasoningT2I
from project.timing import Stopwatch
from project.trajectory import Prompt, SampleKey, Trajectory

TRAJECTORIES = "trajectories.jsonl"


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Everything that decides the bytes of a picture, but the weights and the prompt."""

    seed: int = 0
    think: bool = True
    batch_size: int = 32
    defaults: Defaults

    def task(self) -> ReasoningT2I:
        d = self.defaults
        return ReasoningT2I(
            height=d.height,
            width=d.width,
            think=self.think,
            max_tokens=d.max_tokens,
            temperature=1.0 if d.top_p > 0 else 0.0,
            top_p=d.top_p,
            guidance=Guidance(text=d.guidance, interval=d.guidance_interval),
        )

    def sampler(self) -> FlowODE:
        return FlowODE(num_steps=self.defaults.num_steps, shift=self.defaults.shift)


def settings_for(model: UnifiedModel, seed: int, think: bool, batch_size: int, **changes: Any) -> GenerationSettings:
    """A checkpoint's defaults with the given changes (those that are not None)."""
    defaults = replace(model.defaults, **{name: value for name, value in changes.items() if value is not None})
    return GenerationSettings(seed=seed, think=think, batch_size=batch_size, defaults=defaults)


def generate(model: UnifiedModel, prompts: Sequence[Prompt], settings: GenerationSettings) -> Iterator[Trajectory]:
    """One trajectory per prompt, in order.

    Randomness hangs on the seed and the prompt's place, not on the batch, so one picture can be drawn again alone.
    """
    task, sampler = settings.task(), settings.sampler()
    for start in range(0, len(prompts), settings.batch_size):
        batch = prompts[start : start + settings.batch_size]
        keys = [
            SampleKey(seed=settings.seed, update=-1, prompt=prompt.text, occurrence=start + i)
            for i, prompt in enumerate(batch)
        ]
        yield from task.rollout(model, batch, keys, sampler, range(0), Stopwatch())


def write_trajectories(folder: Path, trajectories: Iterable[Trajectory], settings: GenerationSettings) -> int:
    """`0000.png ...` and `trajectories.jsonl`; pictures and rows appear whole. Returns how many were written."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{TRAJECTORIES}.partial"
    written = 0
    try:
        with partial.open("w") as rows:
            for trajectory in trajectories:
                name = f"{written:04d}.png"
                Image.fromarray(trajectory.image.pixels_HWC.numpy()).save(folder / name)
                row = {
                    "file": name,
                    "prompt": trajectory.prompt.text,
                    "reasoning": trajectory.reasoning,
                    "seed": settings.seed,
                    "settings": {"think": settings.think, **asdict(settings.defaults)},
                }
                rows.write(json.dumps(row) + "\n")
                written += 1
    except BaseException:
        partial.unlink()
        raise
    os.replace(partial, folder / TRAJECTORIES)
    return written
