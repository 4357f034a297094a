"""The benchmark of the embedded world: do pictures show, and does reasoning name, the scene of the prompt?

Prompts: data/shapes/eval.jsonl, 5 sets of 520 prompts, 104 of each kind (see `project.shapes.prompts`).
Figures: shares in [0, 1], every kind of scene weighed evenly.
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
from project.shapes.grammar import read_reasoning
from project.shapes.mistakes import reflect
from project.shapes.prompts import EVAL_SETS
from project.shapes.scenes import KINDS, Scene
from project.trajectory import ImageSegment, Prompt, Trajectory

SETS = tuple(EVAL_SETS)
MEASURES = ("picture", "second_opinion", "reasoning", "reward")
REASONING = {"reasoning": "indirect", "reasoning_heldout": "indirect_heldout"}
"""Figures of the reasoning and the sets that they are taken on."""


class ShapesBenchmark(Benchmark):
    """Accuracy of pictures and reasoning in the embedded world.

    `direct`, `direct_practised`, `direct_heldout`, `indirect`, `indirect_heldout`: share of pictures in which the
    detector reads the prompt's scene and nothing else. `second_opinion/...`: the same by comparison with renderings,
    which no reward sees. `reasoning`, `reasoning_heldout`: share of reasoning texts that arrive at the scene, on the
    indirect sets. `reward`: its mean over the sets. `by_kind/KIND/...`: all of these for one kind of scene.

    Args:
        reward: Reward to report; without it, that of the run's reward callbacks.
    """

    right = "picture"

    def __init__(self, reward: Reward | None = None) -> None:
        super().__init__(KindMeans(), reward)

    def measure(self, trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> list[Outcome]:
        """Outcomes in {0, 1}. Raises ValueError for a prompt that is none of the embedded world's."""
        scenes = [_scene(trajectory.prompt) for trajectory in trajectories]
        pictures = np.stack([trajectory.image.pixels_HWC.cpu().numpy() for trajectory in trajectories])
        shown = detect(pictures).satisfies(scenes)
        second = second_opinion.satisfies(pictures, scenes)
        return [
            {
                "set": trajectory.prompt.columns["set"],
                "kind": scene.kind,
                "picture": int(shown[n]),
                "second_opinion": int(second[n]),
                # The text of a round of refinement is a reflection, and names no scene.
                "reasoning": None if trajectory.round else int(names(trajectory.reasoning, scene)),
                **({} if trajectory.source is None else of_refinement(trajectory, trajectory.source, scene)),
                "reward": rewards[n],
                "text": trajectory.reasoning,
            }
            for n, (trajectory, scene) in enumerate(zip(trajectories, scenes, strict=True))
        ]


class KindMeans(SetKindMeans):
    """Means of every measure per set and kind; `compute` weighs the kinds evenly."""

    def __init__(self) -> None:
        super().__init__(SETS, MEASURES, KINDS)

    def compute(self) -> Results:
        """The figures of `ShapesBenchmark`; without those that nothing was measured for."""
        mean_SMK = self.mean_SMK()
        kinds = {kind: self._figures(mean_SMK[..., k : k + 1]) for k, kind in enumerate(KINDS)}
        return self._figures(mean_SMK) | {"by_kind": {kind: figures for kind, figures in kinds.items() if figures}}

    def _figures(self, mean_SMK: Tensor) -> dict[str, Any]:
        values = self.by_set(mean_SMK)
        figures: dict[str, Any] = dict(values["picture"])
        figures |= {
            name: values["reasoning"][where] for name, where in REASONING.items() if where in values["reasoning"]
        }
        if values["reward"]:
            figures["reward"] = sum(values["reward"].values()) / len(values["reward"])
        if values["second_opinion"]:
            figures["second_opinion"] = values["second_opinion"]
        return figures


def names(reasoning: str, scene: Scene) -> bool:
    """Whether the reasoning arrives at the scene, in whatever order it names the objects."""
    read = read_reasoning(reasoning)
    return read is not None and read.canonical() == scene.canonical()


def of_refinement(trajectory: Trajectory, source: ImageSegment, scene: Scene) -> Outcome:
    """`kept`: whether the picture was kept as it is. `reflection`: whether what was said of it is true; None if nothing
    was said, or the detector cannot read the picture. Both are 0 or 1."""
    layout = detect(source.pixels_HWC.cpu().numpy()[None]).layouts()[0] if trajectory.texts else None
    truths = [] if layout is None else [reflect(scene, layout, placed=placed) for placed in (False, True)]
    return {
        "kept": int(not trajectory.images),
        "reflection": int(trajectory.reasoning in truths) if truths else None,
    }


def _scene(prompt: Prompt) -> Scene:
    if prompt.columns.get("set") not in SETS or "scene" not in prompt.columns:
        raise ValueError(
            f"prompt {prompt.id!r} has no scene or no set of {', '.join(SETS)}: ShapesBenchmark measures "
            "data/shapes/eval.jsonl"
        )
    return Scene.from_dict(prompt.columns["scene"])
