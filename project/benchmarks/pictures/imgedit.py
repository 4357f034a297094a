"""ImgEdit-Bench's edited pictures in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks import imgedit
from project.benchmarks.asking import Enquiry
from project.benchmarks.pictures.base import ItemFile, Picture, Scored, first_file
from project.benchmarks.pictures.free_text import FreeTextBenchmark
from project.benchmarks.scoring import Mode
from project.benchmarks.versions import item_digest, item_version
from project.core.growing_rows import Row
from project.core.images import check_pictures, read_picture_of
from project.judges.free_text import FreeTextJudge


class ImgEditPictures(FreeTextBenchmark[imgedit.ImgEditItem]):
    """The basic suite of ImgEdit-Bench, one edited picture for each instruction.

    Items: `basic_edit.json`. Pictures: `KEY.png`, KEY being the key of the edit in it. The overall figure is the mean
    of the edits that were scored, divided by 5, in both modes: the coverage says whether all were.

    Args:
        judge: Who gives the scores. Papers take a version of GPT-4o.
        sources: Folder that the paths of the source pictures start at; that of the items, if None.
    """

    def __init__(self, judge: FreeTextJudge, sources: str | None = None) -> None:
        super().__init__(judge)
        self.sources = None if sources is None else Path(sources)

    @property
    def template(self) -> str:
        return f"imgedit-{imgedit.TEMPLATE_VERSION}"

    def read_items(self, path: Path) -> ItemFile[imgedit.ImgEditItem]:
        items = imgedit.read_items(path, self.sources)
        return ItemFile(items=items, sha256=item_digest(items), version=item_version("imgedit", items))

    def pictures(self, folder: Path, item: imgedit.ImgEditItem) -> list[Picture]:
        file, tried = first_file(folder, [item.id])
        return [Picture(item=item.id, sample=0, file=file, tried=tried)]

    def place(self, item: imgedit.ImgEditItem, sample: int) -> str:
        return item.id

    def prompt(self, item: imgedit.ImgEditItem) -> str:
        return item.instruction

    def source(self, item: imgedit.ImgEditItem) -> np.ndarray:
        """The picture to edit. Raises ValueError or FileNotFoundError, naming the edit, if it cannot be read."""
        return read_picture_of(item.id, item.source)

    def preflight(self, items: Sequence[imgedit.ImgEditItem]) -> None:
        check_pictures(items, self.source)
        super().preflight(items)

    def enquiry(self, item: imgedit.ImgEditItem, image: np.ndarray) -> Enquiry[Any, Any]:
        return imgedit.enquiry(item, self.source(item), image)

    def row(self, record: Sequence[float]) -> Row:
        return {"scores": list(record)}

    def worth(self, item: imgedit.ImgEditItem, row: Row) -> float:
        """The mean of the three scores, divided by 5."""
        return float(sum(row["scores"]) / len(row["scores"]) / imgedit.HIGHEST)

    def told(self, item: imgedit.ImgEditItem, row: Row) -> list[str]:
        scores = [f"{name} {score:g} of 5" for name, score in zip(imgedit.NAMES, row["scores"], strict=True)]
        return [item.type, *scores]

    def score(self, items: Sequence[imgedit.ImgEditItem], rows: Sequence[Row], mode: Mode) -> Scored:
        types = {item.id: item.type for item in items}
        records = [imgedit.ImgEditRecord(id=row["id"], answer=imgedit.answer_text(row["scores"])) for row in rows]
        scores = imgedit.score(types, records, mode)
        return Scored(
            headline=None if scores.overall is None else scores.overall / imgedit.HIGHEST,
            figures=scores.figures(),
            table=scores.table(),
            coverage=scores.coverage,
        )
