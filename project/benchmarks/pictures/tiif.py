"""TIIF-Bench's pictures in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks import tiif
from project.benchmarks.asking import Enquiry
from project.benchmarks.pictures.base import Counted, ItemFile, Picture, Scored, first_file
from project.benchmarks.pictures.yes_no import YesNoBenchmark, words
from project.benchmarks.scoring import Mode
from project.benchmarks.versions import item_digest, item_version
from project.core.growing_rows import Row
from project.judges.base import Judge
from project.judges.free_text import FreeTextJudge

TESTS = ("testmini", "test")
ATTRIBUTE_OF = {kind: attribute for attribute, kinds in tiif.ATTRIBUTES.items() for kind in kinds}
"""Type -> its attribute."""


class TIIFPictures(YesNoBenchmark[tiif.TIIFItem]):
    """TIIF-Bench, one picture for each description.

    Items: the folder with `testmini_prompts` and `testmini_eval_prompts` (or `test_...`), or the folder of prompts
    itself, with that of the questions beside it. Pictures, N being the line of the prompt, from 0:

        TYPE/MODEL/short_description/N.png      as the official scripts have it
        TYPE/short_description/N.png

    Args:
        judge: Who answers the questions. A judge that answers in free text gets all questions of a picture in one text,
            as the official one does; a judge of yes/no questions gets them one at a time.
        model: MODEL; needed where several models have a folder.
    """

    template = f"tiif-{tiif.TEMPLATE_VERSION}"

    def __init__(self, judge: Judge | FreeTextJudge, model: str | None = None) -> None:
        super().__init__(judge)
        self.model = model

    def read_items(self, path: Path) -> ItemFile[tiif.TIIFItem]:
        items = tiif.read_items(*_folders(path))
        return ItemFile(items=items, sha256=item_digest(items), version=item_version("tiif", items))

    def pictures(self, folder: Path, item: tiif.TIIFItem) -> list[Picture]:
        kind, line, length = item.id.split("/")
        model = self.model or _only_model(folder, kind)
        inner = f"{length}_description/{line}"
        stems = [f"{kind}/{model}/{inner}", *([] if self.model else [f"{kind}/{inner}"])]
        file, tried = first_file(folder, stems)
        return [Picture(item=item.id, sample=0, file=file, tried=tried)]

    def place(self, item: tiif.TIIFItem, sample: int) -> str:
        kind, line, length = item.id.split("/")
        return f"{kind}/{self.model or 'MODEL'}/{length}_description/{line}"

    def questions(self, item: tiif.TIIFItem) -> Sequence[str]:
        return item.questions

    def enquiry(self, item: tiif.TIIFItem, image: np.ndarray) -> Enquiry[Any, Any]:
        return tiif.enquiry(item, image)

    def prompt(self, item: tiif.TIIFItem) -> str:
        return item.prompt

    def worth(self, item: tiif.TIIFItem, row: Row) -> float:
        """The share of questions that are answered as expected."""
        return self._right(item, row) / len(item.questions)

    def counted(self, item: tiif.TIIFItem, row: Row) -> Counted:
        """The two descriptions of a prompt are drawn together."""
        groups = (item.length, ATTRIBUTE_OF[item.type], item.type)
        unit = item.id.rpartition("/")[0]
        return Counted(right=self._right(item, row), asked=len(item.questions), groups=groups, unit=unit)

    def told(self, item: tiif.TIIFItem, row: Row) -> list[str]:
        lines = zip(super().told(item, row), words(row), item.expected, strict=True)
        return [line if said == _word(wanted) else f"{line}  (wrong)" for line, said, wanted in lines]

    @staticmethod
    def _right(item: tiif.TIIFItem, row: Row) -> int:
        return sum(said == _word(wanted) for said, wanted in zip(words(row), item.expected, strict=True))

    def score(self, items: Sequence[tiif.TIIFItem], rows: Sequence[Row], mode: Mode) -> Scored:
        records = [tiif.TIIFRecord(id=row["id"], answers=tuple(words(row))) for row in rows]
        scores = tiif.score(items, records, mode)
        both = [value for value in scores.overall.values() if value is not None]
        return Scored(
            headline=sum(both) / len(both) if both else None,
            figures=scores.figures(),
            table=scores.table(),
            coverage=scores.coverage,
        )


def _word(expected: str) -> str:
    """An expected answer as `words` writes it."""
    return expected.strip().lower()


def _folders(path: Path) -> tuple[Path, Path]:
    """Those of prompts and questions. Raises FileNotFoundError if `path` has or is none."""
    for test in TESTS:
        if (path / f"{test}_prompts").is_dir():
            return path / f"{test}_prompts", path / f"{test}_eval_prompts"
    if path.is_dir() and path.name.endswith("_prompts"):
        return path, path.with_name(f"{path.name.removesuffix('_prompts')}_eval_prompts")
    raise FileNotFoundError(
        f"{path} holds no folder testmini_prompts: give the folder data of {tiif.HOME}, which holds it beside "
        "testmini_eval_prompts"
    )


def _only_model(folder: Path, kind: str) -> str:
    """The model that has a folder in that of a type, or "MODEL" if there is none. Raises ValueError for several."""
    models = [inner.name for inner in _folders_in(folder / kind) if _folders_in(inner)]
    if len(models) > 1:
        raise ValueError(f"{folder / kind} has pictures of several models ({', '.join(models)}): name one with --model")
    return models[0] if models else "MODEL"


def _folders_in(folder: Path) -> list[Path]:
    return sorted(inner for inner in folder.iterdir() if inner.is_dir()) if folder.is_dir() else []
