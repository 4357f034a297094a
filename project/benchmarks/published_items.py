"""The items of a published benchmark as prompts for the policy, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks.pictures_of_others.asked import AskedItems
from project.benchmarks.pictures_of_others.base import PictureBenchmark
from project.trajectory import Prompt


class PublishedItems:
    """What a benchmark asks for, read when it is first needed.

    Args:
        pictures: The benchmark.
        path: Its official file or folder.
        every: Of all items, every so many.
        limit: At most so many of these.
    """

    def __init__(self, pictures: PictureBenchmark[Any], path: str, every: int = 1, limit: int | None = None) -> None:
        self.pictures, self.path, self.every, self.limit = pictures, path, every, limit

    @cached_property
    def asked(self) -> AskedItems[Any]:
        """The items to draw. Raises ValueError or FileNotFoundError, see `AskedItems.of`."""
        return AskedItems.of(self.pictures, Path(self.path), self.limit, self.every)

    @cached_property
    def by_id(self) -> dict[str, Any]:
        """Id -> item, of those to draw."""
        return {item.id: item for item in self.asked.asked}

    @cached_property
    def _by_text(self) -> dict[str, Any]:
        return {self.pictures.prompt(item): item for item in self.asked.read.items}

    @cached_property
    def prompts(self) -> Sequence[Prompt]:
        """A prompt for each picture of each item."""
        return [
            Prompt(
                id=f"{item.id}/{sample}",
                text=self.pictures.prompt(item),
                benchmark=self.pictures.name(),
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
        """The item that a prompt is for, by its mark or else by its text. Raises ValueError if there is none."""
        item = self.by_id.get(prompt.columns["item"]) if prompt.benchmark == self.pictures.name() else None
        item = item or self._by_text.get(prompt.text)
        if item is None:
            where = f"{prompt.place}: " if prompt.place else ""
            raise ValueError(
                f"{where}prompt {prompt.text!r} is none of {self.path}: {self.pictures.name()} judges pictures of its "
                "own prompts only, give the same file to both"
            )
        return item

    def source(self, prompt: Prompt) -> np.ndarray:
        """The picture that a prompt edits, uint8 [height, width, 3]. Raises ValueError for an item without."""
        item = self.of(prompt)
        picture = self.pictures.source(item)
        if picture is None:
            raise ValueError(f"{self.path}: item {item.id} has no picture to edit: add it, or leave the item out")
        return picture
