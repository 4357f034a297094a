"""What a run over pictures is about: some or all items of a benchmark, and who judges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from project.benchmarks.pictures.base import Item, ItemFile, PictureBenchmark
from project.benchmarks.scoring import require_unique


@dataclass(frozen=True, kw_only=True)
class AskedItems(Generic[Item]):
    """The items of a benchmark, and those of them that a run is about.

    Attributes:
        path: The official file or folder.
        read: The whole benchmark.
        asked: Those to draw and to score.
    """

    path: Path
    read: ItemFile[Item]
    asked: tuple[Item, ...]

    @classmethod
    def of(
        cls, benchmark: PictureBenchmark[Item], path: Path, limit: int | None = None, every: int = 1
    ) -> AskedItems[Item]:
        """The items that a benchmark reads.

        Args:
            benchmark: Who reads.
            path: The official file or folder.
            limit: At most so many, the first ones; all, if None.
            every: Of all, every so many.

        Raises FileNotFoundError or ValueError for items that cannot be used, and for none.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: give at least 1 item, or leave it out")
        if every < 1:
            raise ValueError(f"every={every}: give 1 for all items, 2 for every second one")
        read = benchmark.read_items(path)
        require_unique([item.id for item in read.items], "items")
        if not read.items:
            raise ValueError(f"{path} holds no items: take the official file")
        return cls(path=path, read=read, asked=read.items[::every][:limit])


def identity(
    benchmark: PictureBenchmark[Item], read: ItemFile[Item], drawing: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What must be the same for rows to stand in one folder: prompts, who judges, and how pictures are drawn."""
    return {
        "benchmark": benchmark.name(),
        "items": len(read.items),
        "items_sha256": read.sha256,
        "items_version": read.version,
        **benchmark.made_by(),
        **({} if drawing is None else {"drawing": dict(drawing)}),
    }
