"""The items of a published benchmark as prompts for the policy, and back."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks.base import Outcome
from project.benchmarks.pictures.asked import AskedItems
from project.benchmarks.pictures.base import Picture, PictureBenchmark
from project.benchmarks.scoring import listed
from project.trajectory import Prompt, Trajectory


class PublishedItems:
    """What a benchmark asks for, read when it is first needed.

    Args:
        pictures: The benchmark.
        path: Its official file or folder.
        every: Of all items, every so many.
        limit: At most so many of these.
        name: That their prompts are marked with; the benchmark's own, if None.

    Raises:
        ValueError: For a name that cannot be part of a path.
    """

    def __init__(
        self,
        pictures: PictureBenchmark[Any],
        path: str,
        every: int = 1,
        limit: int | None = None,
        name: str | None = None,
    ) -> None:
        self.pictures, self.path, self.every, self.limit = pictures, path, every, limit
        self.name = pictures.name() if name is None else name
        if not re.fullmatch(r"[a-z0-9_-]+", self.name):
            raise ValueError(
                f"name={self.name!r}: it is part of the names of figures and folders, so give lower-case letters, "
                "digits, '_' and '-' only"
            )

    @cached_property
    def asked(self) -> AskedItems[Any]:
        """The items to draw. Raises ValueError or FileNotFoundError, see `AskedItems.of`."""
        return AskedItems.of(self.pictures, Path(self.path), self.limit, self.every)

    @cached_property
    def by_id(self) -> dict[str, Any]:
        """Id -> item, of those to draw."""
        return {item.id: item for item in self.asked.asked}

    @cached_property
    def _by_text(self) -> dict[str, list[Any]]:
        found = defaultdict(list)
        for item in self.asked.read.items:
            found[self.pictures.prompt(item)].append(item)
        return found

    @cached_property
    def prompts(self) -> Sequence[Prompt]:
        """A prompt for each picture of each item."""
        return [
            Prompt(
                id=f"{item.id}/{sample}",
                text=self.pictures.prompt(item),
                benchmark=self.name,
                columns={"item": item.id, "sample": sample},
            )
            for item in self.asked.asked
            for sample in range(self.pictures.samples)
        ]

    @cached_property
    def edits(self) -> bool:
        """Whether the items are pictures to edit."""
        return self.pictures.source(self.asked.asked[0]) is not None

    def of(self, prompt: Prompt) -> Any:
        """The item that a prompt is for, by its mark or else by its text.

        Raises ValueError if there is none, or if it is one of several edits with this text.
        """
        if prompt.benchmark == self.name and (marked := self.by_id.get(prompt.columns.get("item", ""))) is not None:
            return marked
        where = f"{prompt.place}: " if prompt.place else ""
        items = self._by_text.get(prompt.text, [])
        if not items:
            raise ValueError(
                f"{where}prompt {prompt.text!r} is none of {self.path}: {self.name} judges pictures of its own prompts "
                "only, give the same file to both"
            )
        if len(items) > 1 and self.edits:
            raise ValueError(
                f"{where}prompt {prompt.text!r} is that of several edits ({listed([item.id for item in items])}), and "
                "the text does not say which picture is edited: leave these edits out"
            )
        return items[0]

    def judged(self, trajectories: Sequence[Trajectory]) -> list[Outcome]:
        """The verdict on each picture, with the id and the sample that it counts for.

        `right` and `worth` in [0, 1] with what was found; both None, with `not_judged`, the reason, if it was not
        judged. Raises ValueError for a prompt that is no item, and what the benchmark raises.
        """
        items = [self.of(trajectory.prompt) for trajectory in trajectories]
        images = [trajectory.image.pixels_HWC.cpu().numpy() for trajectory in trajectories]
        pictures = [
            Picture(item=item.id, sample=trajectory.prompt.columns.get("sample", 0), file=None, tried=())
            for item, trajectory in zip(items, trajectories, strict=True)
        ]
        outcomes: list[Outcome] = []
        for item, picture, found in zip(items, pictures, self.pictures.judge(images, items, pictures), strict=True):
            row = {"id": item.id, "sample": picture.sample}
            if isinstance(found, str):
                outcomes.append({**row, "right": None, "worth": None, "not_judged": found})
            else:
                worth = self.pictures.worth(item, {**row, **found})
                outcomes.append({**row, **found, "right": worth == 1, "worth": worth})
        return outcomes

    def source(self, prompt: Prompt) -> np.ndarray:
        """The picture that a prompt edits, uint8 [height, width, 3]. Raises ValueError for an item without."""
        item = self.of(prompt)
        picture = self.pictures.source(item)
        if picture is None:
            raise ValueError(f"{self.path}: item {item.id} has no picture to edit: add it, or leave the item out")
        return picture
