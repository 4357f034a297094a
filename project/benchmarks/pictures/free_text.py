"""Benchmarks whose judge answers in free text, and what rows keep of its answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from project.benchmarks.asking import ATTEMPTS, Enquiry, Judged, ask
from project.benchmarks.pictures.base import Item, Picture, PictureBenchmark
from project.core.growing_rows import Row
from project.judges.free_text import FreeTextJudge

Record = TypeVar("Record")


def rows_of_texts(
    judge: FreeTextJudge,
    enquiries: Sequence[Enquiry[Any, Record]],
    pictures: Sequence[Picture],
    row: Callable[[Record], Row],
) -> list[Row | str]:
    """What a judge writes about each picture: what `row` makes of the record, and `texts`, the answers themselves.

    The reason instead, where it did not answer or no attempt could be read. Raises as `asking.ask`.
    """
    named = [replace(enquiry, id=picture.name) for enquiry, picture in zip(enquiries, pictures, strict=True)]
    return [
        {**row(found.record), "texts": list(found.texts)} if isinstance(found, Judged) else found.message
        for found in ask(judge, named)
    ]


def protocol(template: str) -> str:
    """How answers in free text are asked for and read, for the record of a result."""
    return f"{template}, read strictly, at most {ATTEMPTS} attempts"


class FreeTextBenchmark(PictureBenchmark[Item]):
    """Sends the requests of each picture to a judge and reads what it writes.

    Answers are read strictly and asked for again where they cannot be read, a bounded number of times. A picture whose
    answer cannot be read in the end is not judged.

    Args:
        judge: Who writes.
        samples: Pictures of each item.
    """

    mixed_sizes = True

    def __init__(self, judge: FreeTextJudge, samples: int | None = None) -> None:
        super().__init__(samples)
        self.asked = judge

    @property
    @abstractmethod
    def template(self) -> str:
        """Name and version of the words of the requests."""

    @abstractmethod
    def enquiry(self, item: Item, image: np.ndarray) -> Enquiry[Any, Any]:
        """What is asked about a picture, uint8 [height, width, 3], of an item."""

    @abstractmethod
    def row(self, record: Any) -> Row:
        """What a row holds of the record of a picture."""

    def made_by(self) -> dict[str, str]:
        return {"judge": self.asked.name, "protocol": protocol(self.template)}

    def preflight(self, items: Sequence[Item]) -> None:
        self.asked.preflight()

    def judge(
        self, images: Sequence[np.ndarray], items: Sequence[Item], pictures: Sequence[Picture]
    ) -> list[Row | str]:
        enquiries = [self.enquiry(item, image) for item, image in zip(items, images, strict=True)]
        return rows_of_texts(self.asked, enquiries, pictures, self.row)
