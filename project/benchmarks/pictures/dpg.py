"""DPG-Bench's pictures in a folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from project.benchmarks import dpg
from project.benchmarks.pictures.base import ItemFile, Picture, Scored, first_file, numbered
from project.benchmarks.pictures.yes_no import YesNoBenchmark, words
from project.benchmarks.scoring import Mode
from project.benchmarks.versions import item_digest, item_version
from project.core.growing_rows import Row
from project.judges.base import Judge


class DPGPictures(YesNoBenchmark[dpg.DPGItem]):
    """DPG-Bench, four pictures for each prompt.

    Items: `dpg_bench.csv`. Pictures, ITEM being the name of the prompt's file and N the picture's number, from 0:

        ITEM.png        a grid of 2 x 2, as the official scripts have it; the one picture with `samples` 1
        ITEM/N.png      one file each
        ITEM_N.png

    Whether ITEM.png is a grid cannot be seen from it: with one picture for each prompt, say `samples` 1.

    Args:
        judge: Who answers the questions. The official one is mPLUG-large.
        samples: Pictures of each prompt; 4 if none is given.
    """

    standard_samples = dpg.PICTURES

    def __init__(self, judge: Judge, samples: int | None = None) -> None:
        super().__init__(judge, samples)

    def read_items(self, path: Path) -> ItemFile[dpg.DPGItem]:
        items = dpg.read_items(path)
        return ItemFile(items=items, sha256=item_digest(items), version=item_version("dpg", items))

    def pictures(self, folder: Path, item: dpg.DPGItem) -> list[Picture]:
        whole = [item.id] if self.samples in (1, dpg.PICTURES) else []
        one, tried = first_file(folder, whole)
        if one is not None:
            quarters = [None] if self.samples == 1 else range(self.samples)
            return [
                Picture(item=item.id, sample=n, file=one, tried=tried, quarter=quarter)
                for n, quarter in enumerate(quarters)
            ]
        found = []
        for sample in range(self.samples):
            file, tried = first_file(
                folder, [*whole, *numbered(f"{item.id}/", sample), *numbered(f"{item.id}_", sample)]
            )
            found.append(Picture(item=item.id, sample=sample, file=file, tried=tried))
        return found

    def place(self, item: dpg.DPGItem, sample: int) -> str:
        return item.id if self.samples == 1 else f"{item.id}/{sample}"

    def questions(self, item: dpg.DPGItem) -> Sequence[str]:
        return [question.text for question in item.questions]

    def prompt(self, item: dpg.DPGItem) -> str:
        return item.prompt

    def worth(self, item: dpg.DPGItem, row: Row) -> float:
        """The share of questions that are answered by yes and depend on none that is not, as in strict mode."""
        numbers = [question.number for question in item.questions]
        record = dpg.DPGRecord(id=item.id, answers=(dict(zip(numbers, words(row), strict=True)),))
        return dpg.score([item], [record], "strict", pictures=1).items[item.id][0]

    def score(self, items: Sequence[dpg.DPGItem], rows: Sequence[Row], mode: Mode) -> Scored:
        numbers = {item.id: [question.number for question in item.questions] for item in items}
        answers: dict[str, list[dict[int, str]]] = defaultdict(list)
        for row in rows:
            answers[row["id"]].append(dict(zip(numbers[row["id"]], words(row), strict=True)))
        records = [dpg.DPGRecord(id=name, answers=tuple(given)) for name, given in answers.items()]
        scores = dpg.score(items, records, mode, self.samples)
        return Scored(headline=scores.overall, figures=scores.figures(), table=scores.table(), coverage=scores.coverage)
