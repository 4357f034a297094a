"""WISE's pictures in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks import wise
from project.benchmarks.asking import Enquiry
from project.benchmarks.pictures.base import Counted, ItemFile, Picture, Scored, first_file
from project.benchmarks.pictures.free_text import FreeTextBenchmark
from project.benchmarks.scoring import Mode
from project.benchmarks.versions import item_digest, item_version
from project.core.growing_rows import Row
from project.judges.free_text import FreeTextJudge


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedPrompt:
    """A prompt of WISE by its number."""

    wise: wise.WISEItem

    @property
    def id(self) -> str:
        """Its number, 1 to 1000."""
        return str(self.wise.id)


class WISEPictures(FreeTextBenchmark[NumberedPrompt]):
    """WISE, one picture for each prompt.

    Items: the folder with the three files of the edition, or one file. One of the three files alone is scored as the
    categories that it holds; there is no overall score then. Pictures, for the prompt with the number 12 (`prompt_id`,
    from 1):

        12.png                              as the official scripts have it
        cultural_common_sense/12.png        by the name of the prompt's file
        culture/12.png                      by category

    Names with zeros before the number are not taken: `generate` counts its pictures from 0, which is another prompt.

    Args:
        judge: Who scores. Papers take a version of GPT-4o for the legacy edition.
        edition: legacy, with three scores of 0 to 2, or verified (2026), which says whether the picture shows what the
            explanation says.
        rewritten: Take the prompts that say what is to be seen, of the legacy edition.

    Raises:
        ValueError: For rewritten prompts of the verified edition.
    """

    def __init__(self, judge: FreeTextJudge, edition: wise.Edition = "legacy", rewritten: bool = False) -> None:
        super().__init__(judge)
        if rewritten and edition != "legacy":
            raise ValueError("rewritten prompts are there for the legacy edition alone: leave rewritten out")
        self.edition, self.rewritten = edition, rewritten

    @property
    def template(self) -> str:
        return f"wise-{self.edition}-{wise.TEMPLATE_VERSION}"

    def made_by(self) -> dict[str, str]:
        return {"edition": f"{self.edition}{', rewritten' if self.rewritten else ''}", **super().made_by()}

    def read_items(self, path: Path) -> ItemFile[NumberedPrompt]:
        items = wise.read_items(path, self.edition, self.rewritten)
        return ItemFile(
            items=tuple(NumberedPrompt(wise=item) for item in items),
            sha256=item_digest(items),
            version=item_version(f"wise_{self.edition}", items),
        )

    def pictures(self, folder: Path, item: NumberedPrompt) -> list[Picture]:
        category = item.wise.category
        of_file = next(name for name, categories in wise.FILES.items() if category in categories)
        file, tried = first_file(folder, [item.id, f"{of_file}/{item.id}", f"{category}/{item.id}"])
        return [Picture(item=item.id, sample=0, file=file, tried=tried)]

    def place(self, item: NumberedPrompt, sample: int) -> str:
        return item.id

    def prompt(self, item: NumberedPrompt) -> str:
        return item.wise.prompt

    def enquiry(self, item: NumberedPrompt, image: np.ndarray) -> Enquiry[Any, Any]:
        return (wise.enquiry if self.edition == "legacy" else wise.verdict_enquiry)(item.wise, image)

    def row(self, record: wise.WISERecord | wise.WISEVerdict) -> Row:
        if isinstance(record, wise.WISEVerdict):
            return {"score": record.score}
        return {name: getattr(record, name) for name in wise.ASPECTS}

    def worth(self, item: NumberedPrompt, row: Row) -> float:
        return wise.wiscore(*(row[name] for name in wise.ASPECTS)) if self.edition == "legacy" else float(row["score"])

    def counted(self, item: NumberedPrompt, row: Row) -> Counted:
        category = item.wise.category
        weight = wise.WEIGHTS[self.edition][category]
        return Counted(right=self.worth(item, row), groups=(category,), weight=weight, unit=item.id)

    def told(self, item: NumberedPrompt, row: Row) -> list[str]:
        if self.edition == "verified":
            return ["right" if row["score"] else "wrong"]
        scores = [f"{name.replace('_', ' ')} {row[name]:g} of 2" for name in wise.ASPECTS]
        return [f"WiScore {self.worth(item, row):.2f}", *scores]

    def score(self, items: Sequence[NumberedPrompt], rows: Sequence[Row], mode: Mode) -> Scored:
        there = {item.wise.category for item in items}
        categories = [name for name in wise.CATEGORIES if name in there]
        expected = {item.wise.id for item in items}
        if self.edition == "legacy":
            records = [wise.WISERecord(id=int(row["id"]), **{name: row[name] for name in wise.ASPECTS}) for row in rows]
            scores = wise.score_legacy(records, mode, categories, expected)
        else:
            verdicts = [wise.WISEVerdict(id=int(row["id"]), score=row["score"]) for row in rows]
            scores = wise.score_verified(verdicts, mode, categories, expected)
        return Scored(headline=scores.overall, figures=scores.figures(), table=scores.table(), coverage=scores.coverage)
