"""GenEval's pictures in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from project.benchmarks.geneval.colors import CLIPColors, ColorClassifier
from project.benchmarks.geneval.detector import Detector
from project.benchmarks.geneval.items import PUBLISHED, Item, read_items
from project.benchmarks.geneval.mask2former import Mask2FormerDetector
from project.benchmarks.geneval.pictures import judge_pictures
from project.benchmarks.geneval.summary import SAMPLES, PictureRow, score
from project.benchmarks.pictures.base import (
    Counted,
    ItemFile,
    Picture,
    PictureBenchmark,
    Scored,
    first_file,
    numbered,
)
from project.benchmarks.scoring import Mode, percent
from project.core.growing_rows import Row


class GenEvalPictures(PictureBenchmark[Item]):
    """GenEval, four pictures for each prompt.

    Items: `evaluation_metadata.jsonl`. Pictures, for picture 3 of prompt 12, both counted from 0:

        00012/samples/0003.png      as the official scripts have it; 00003.png and 3.png too
        00012/0003.png              the same without `samples`
        00012_3.png
        0012_3.png                  as `generate --num-images 4` writes them, with 0012.png for picture 0

    Args:
        detector: Who finds objects; Mask2Former if none is given.
        colors: Who names their colours, CLIP if none is given; not used where no prompt asks for a colour.
        samples: Pictures of each prompt; 4 if none is given.
    """

    standard_samples = SAMPLES

    def __init__(
        self, detector: Detector | None = None, colors: ColorClassifier | None = None, samples: int | None = None
    ) -> None:
        super().__init__(samples)
        self.detector = detector or Mask2FormerDetector()
        self.colors = colors or CLIPColors()

    def read_items(self, path: Path) -> ItemFile[Item]:
        read = read_items(path)
        return ItemFile(items=read.items, sha256=read.sha256, version=PUBLISHED.get(read.sha256))

    def pictures(self, folder: Path, item: Item) -> list[Picture]:
        found = []
        for sample in range(self.samples):
            short = f"{int(item.id):04d}"
            stems = [
                *numbered(f"{item.id}/samples/", sample),
                *numbered(f"{item.id}/", sample),
                f"{item.id}_{sample}",
                f"{short}_{sample}" if sample else short,
            ]
            file, tried = first_file(folder, stems)
            found.append(Picture(item=item.id, sample=sample, file=file, tried=tried))
        return found

    def place(self, item: Item, sample: int) -> str:
        return f"{item.id}/samples/{sample:04d}"

    def prompt(self, item: Item) -> str:
        return item.prompt

    def made_by(self) -> dict[str, str]:
        return {"label": self.detector.label, "detector": self.detector.source, "colors": self.colors.label}

    def preflight(self, items: Sequence[Item]) -> None:
        self.detector.preflight()
        if any(needed.color is not None for item in items for needed in item.include):
            self.colors.preflight()

    def judge(
        self, images: Sequence[np.ndarray], items: Sequence[Item], pictures: Sequence[Picture]
    ) -> list[Row | str]:
        samples = [picture.sample for picture in pictures]
        verdicts = judge_pictures(images, items, samples, self.detector, self.colors)
        return [{"tag": row.tag, "correct": row.correct, "reason": row.reason} for row in verdicts]

    def worth(self, item: Item, row: Row) -> float:
        return float(row["correct"])

    def counted(self, item: Item, row: Row) -> Counted:
        return Counted(right=self.worth(item, row), groups=(row["tag"],), unit=item.id)

    def told(self, item: Item, row: Row) -> list[str]:
        return [f"{row['tag']}: {'right' if row['correct'] else 'wrong'}", *row["reason"].splitlines()]

    def score(self, items: Sequence[Item], rows: Sequence[Row], mode: Mode) -> Scored:
        verdicts = [
            PictureRow(
                item=row["id"], sample=row["sample"], tag=row["tag"], correct=row["correct"], reason=row["reason"]
            )
            for row in rows
        ]
        scores = score(verdicts, items, mode, self.samples)
        shares = {**scores.tags, "correct images": scores.images, "correct prompts": scores.prompts}
        return Scored(
            headline=scores.overall,
            figures=scores.figures(),
            table=[
                ("", "score"),
                ("overall", percent(scores.overall)),
                *((name, percent(share.value if share else None)) for name, share in shares.items()),
            ],
            coverage=scores.coverage,
        )
