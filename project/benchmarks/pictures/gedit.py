"""GEdit-Bench's edited pictures in a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks import gedit, viescore
from project.benchmarks.asking import Enquiry
from project.benchmarks.pictures.base import Counted, ItemFile, Picture, Scored, first_file
from project.benchmarks.pictures.free_text import FreeTextBenchmark
from project.benchmarks.scoring import Coverage, Mode
from project.benchmarks.versions import item_digest, item_version
from project.core.growing_rows import Row
from project.core.images import check_pictures, picture_of_bytes, read_picture_of
from project.judges.free_text import FreeTextJudge


class GEditPictures(FreeTextBenchmark[gedit.GEditItem]):
    """GEdit-Bench, one edited picture for each instruction, judged by VIEScore.

    Items: the dataset (hub id, folder or file) or an instruction file (see `gedit.py`). Pictures, KEY being the name of
    the source picture:

        fullset/GROUP/LANGUAGE/KEY.png      as the official scripts have it
        GROUP/LANGUAGE/KEY.png              in the folder `fullset` itself

    English and Chinese are scored apart, each over all edits (`fullset`) and over the `intersection`. The overall
    figure is O of all edits in English, in Chinese where there are no others, divided by 10. In strict mode there is no
    average where a group has no edits.

    Args:
        judge: Who gives the scores. Papers take a version of GPT-4.1.
        language: Score the instructions in this one; all that are there, if None.
        groups: Score these, e.g. [ps_human, text_change]; all, if None.
        sources: Folder that the ids of an instruction file start at: it holds the source pictures. The dataset brings
            its own.

    Raises:
        ValueError: For a group that is none of the benchmark.
    """

    def __init__(
        self,
        judge: FreeTextJudge,
        language: gedit.Language | None = None,
        groups: list[str] | None = None,
        sources: str | None = None,
    ) -> None:
        super().__init__(judge)
        if strange := [group for group in groups or () if group not in gedit.GROUPS]:
            raise ValueError(f"groups: {strange[0]!r} is no group of GEdit-Bench: choose of {', '.join(gedit.GROUPS)}")
        self.languages = gedit.LANGUAGES if language is None else (language,)
        self.groups = tuple(group for group in gedit.GROUPS if groups is None or group in groups)
        self.sources = None if sources is None else Path(sources)

    def made_by(self) -> dict[str, str]:
        groups = "all" if self.groups == gedit.GROUPS else ", ".join(self.groups)
        return {"languages": " and ".join(self.languages), "groups": groups, **super().made_by()}

    @property
    def template(self) -> str:
        return f"viescore-{viescore.TEMPLATE_VERSION}"

    def read_items(self, path: Path) -> ItemFile[gedit.GEditItem]:
        if path.suffix == ".json" and self.sources is None:
            raise ValueError(f"{path} holds instructions alone: give --sources, the folder of the source pictures")
        whole = gedit.read_items(path, self.sources)
        items = tuple(item for item in whole if item.language in self.languages and item.group in self.groups)
        if not items:
            raise ValueError(
                f"{path}: none of the {len(whole)} edits is of the language {' or '.join(self.languages)} and of the "
                f"groups {', '.join(self.groups)}: choose others"
            )
        return ItemFile(items=items, sha256=item_digest(items), version=item_version("gedit", whole))

    def pictures(self, folder: Path, item: gedit.GEditItem) -> list[Picture]:
        file, tried = first_file(folder, [f"fullset/{item.id}", item.id])
        return [Picture(item=item.id, sample=0, file=file, tried=tried)]

    def place(self, item: gedit.GEditItem, sample: int) -> str:
        return f"fullset/{item.id}"

    def prompt(self, item: gedit.GEditItem) -> str:
        return item.instruction

    def source(self, item: gedit.GEditItem) -> np.ndarray:
        """The picture to edit. Raises ValueError or FileNotFoundError, naming the edit, if it cannot be read."""
        if item.source is None:
            raise ValueError(f"{item.id} has no source picture: take the edits from {gedit.HOME}")
        if isinstance(item.source, bytes):
            return picture_of_bytes(item.source, f"the source picture of {item.id}")
        return read_picture_of(item.id, item.source)

    def preflight(self, items: Sequence[gedit.GEditItem]) -> None:
        check_pictures(items, self.source)
        super().preflight(items)

    def enquiry(self, item: gedit.GEditItem, image: np.ndarray) -> Enquiry[Any, Any]:
        return gedit.enquiry(item, self.source(item), image)

    def row(self, record: gedit.GEditRecord) -> Row:
        return {"semantics": record.semantics, "quality": record.quality}

    def worth(self, item: gedit.GEditItem, row: Row) -> float:
        """O, divided by 10."""
        return _vie(row).overall / viescore.HIGHEST

    def counted(self, item: gedit.GEditItem, row: Row) -> Counted:
        return Counted(right=self.worth(item, row), groups=(item.group,), unit=item.id)

    def told(self, item: gedit.GEditItem, row: Row) -> list[str]:
        found = _vie(row)
        reasons = [viescore.parse_answer(text).reasoning for text in row["texts"]]
        scores = f"SC {found.semantics:g}, PQ {found.quality:g}, O {found.overall:.2f}"
        return [scores, *(" ".join(reason.split()) for reason in reasons if reason.strip())]

    def score(self, items: Sequence[gedit.GEditItem], rows: Sequence[Row], mode: Mode) -> Scored:
        records = [gedit.GEditRecord(id=row["id"], semantics=row["semantics"], quality=row["quality"]) for row in rows]
        there = [language for language in self.languages if any(item.language == language for item in items)]
        scores = [self._of_language(items, records, language, mode) for language in there]
        overall = scores[0].fullset.average if scores else None
        header: tuple[str, ...] = ("",)
        table: list[tuple[str, ...]] = []
        for found in scores:
            header, (_, *average), *groups = found.table()
            table += [(found.language, *average), *((f"  {group}", *cells) for group, *cells in groups)]
        return Scored(
            headline=None if overall is None else overall.overall / viescore.HIGHEST,
            figures={found.language: found.figures() for found in scores},
            table=[header, *table],
            coverage=Coverage(
                expected=sum(found.coverage.expected for found in scores),
                missing=tuple(name for found in scores for name in found.coverage.missing),
                dropped=tuple(pair for found in scores for pair in found.coverage.dropped),
            ),
        )

    def _of_language(
        self,
        items: Sequence[gedit.GEditItem],
        records: Sequence[gedit.GEditRecord],
        language: gedit.Language,
        mode: Mode,
    ) -> gedit.GEditScores:
        asked = [item for item in items if item.language == language]
        names = {item.id for item in asked}
        groups = [group for group in self.groups if any(item.group == group for item in asked)]
        scores = gedit.score(asked, [record for record in records if record.id in names], language, mode, groups)
        if mode == "official" or len(groups) == len(self.groups):
            return scores
        # Of the first items alone, or of a part of the dataset: not the average that was asked for.
        return dataclasses.replace(
            scores,
            fullset=dataclasses.replace(scores.fullset, average=None),
            intersection=dataclasses.replace(scores.intersection, average=None),
        )


def _vie(row: Row) -> viescore.VIEScore:
    return viescore.VIEScore(semantics=row["semantics"], quality=row["quality"])
