"""The editing benchmark of the embedded world: is a picture changed as told, and is the rest of it kept?

Prompts: data/shapes/edit.jsonl, 3 sets with 130 instructions of each kind together (see `project.shapes.prompts`).
Figures: shares in [0, 1], every kind of edit weighed evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from project.benchmarks.base import Benchmark, Outcome, Results
from project.benchmarks.means import SetKindMeans
from project.rewards.base import Reward
from project.shapes import second_opinion
from project.shapes.detector import detect
from project.shapes.editing import EDIT_KINDS, Edit, changed, edit_of, kept
from project.shapes.prompts import EDIT_SETS
from project.shapes.scenes import Layout
from project.trajectory import Prompt, Trajectory

SETS = tuple(EDIT_SETS)
MEASURES = ("picture", "changed", "kept", "second_opinion", "reward")


class ShapesEditingBenchmark(Benchmark):
    """Accuracy of edited pictures in the embedded world.

    `edit`, `edit_practised`, `edit_heldout`: share of pictures in which the detector reads the change that was asked
    for and everything else as it was. `changed/...`, `kept/...`: share with the one, and with the other (a copy of the
    source keeps everything). `second_opinion/...`: both at once by comparison with renderings, which no reward sees.
    `reward`: its mean over the sets. `by_kind/KIND/...`: all of these for one kind of edit. Jitter and the tone of the
    background do not count; a picture that cannot be read counts as neither changed nor kept.

    Args:
        reward: Reward to report; without it, that of the run's reward callbacks.
    """

    right = "picture"

    def __init__(self, reward: Reward | None = None) -> None:
        super().__init__(EditMeans(), reward)

    def measure(self, trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> list[Outcome]:
        """Outcomes in {0, 1}. Raises ValueError for a prompt that is no edit of the embedded world."""
        edits = [_edit(trajectory.prompt) for trajectory in trajectories]
        pictures = np.stack([trajectory.image.pixels_HWC.cpu().numpy() for trajectory in trajectories])
        shown, second = detect(pictures).layouts(), second_opinion.read(pictures)
        outcomes = []
        for n, (trajectory, edit) in enumerate(zip(trajectories, edits, strict=True)):
            is_changed, is_kept = _verdict(edit, shown[n])
            outcomes.append(
                {
                    "set": trajectory.prompt.columns["set"],
                    "kind": edit.kind,
                    "picture": int(is_changed and is_kept),
                    "changed": int(is_changed),
                    "kept": int(is_kept),
                    "second_opinion": int(all(_verdict(edit, second[n]))),
                    "reward": rewards[n],
                    "text": trajectory.reasoning,
                }
            )
        return outcomes


class EditMeans(SetKindMeans):
    """The figures of `ShapesEditingBenchmark`; without those that nothing was measured for."""

    def __init__(self) -> None:
        super().__init__(SETS, MEASURES, EDIT_KINDS)

    def compute(self) -> Results:
        """The figures, kinds weighed evenly."""
        mean_SMK = self.mean_SMK()
        kinds = {kind: self._figures(mean_SMK[..., k : k + 1]) for k, kind in enumerate(EDIT_KINDS)}
        return self._figures(mean_SMK) | {"by_kind": {kind: figures for kind, figures in kinds.items() if figures}}

    def _figures(self, mean_SMK: Tensor) -> dict[str, Any]:
        values = self.by_set(mean_SMK)
        figures: dict[str, Any] = dict(values["picture"])
        figures |= {name: values[name] for name in ("changed", "kept", "second_opinion") if values[name]}
        if values["reward"]:
            figures["reward"] = sum(values["reward"].values()) / len(values["reward"])
        return figures


def _verdict(edit: Edit, shown: Layout | None) -> tuple[bool, bool]:
    """Whether a picture that shows this is changed as told, and whether it kept the rest."""
    if shown is None:
        return False, False
    return changed(edit.change, shown), kept(edit.change, edit.source, shown)


def _edit(prompt: Prompt) -> Edit:
    if prompt.columns.get("set") not in SETS:
        raise ValueError(
            f"prompt {prompt.id!r} is of no set of {', '.join(SETS)}: ShapesEditingBenchmark measures "
            "data/shapes/edit.jsonl"
        )
    return edit_of(prompt)
