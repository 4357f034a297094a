"""GenEval2's pictures in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from project.benchmarks import geneval2
from project.benchmarks.asking import Judged
from project.benchmarks.pictures.base import (
    ItemFile,
    Picture,
    PictureBenchmark,
    Scored,
    first_file,
    numbered,
)
from project.benchmarks.pictures.yes_no import rounded
from project.benchmarks.scoring import Mode
from project.core.growing_rows import Row
from project.core.json_files import read_object
from project.judges.short_answers import ShortAnswerJudge


class GenEval2Pictures(PictureBenchmark[geneval2.AtomPrompt]):
    """GenEval2, one picture for each prompt.

    Items: `geneval2_data.jsonl`. The official script takes no folder but a JSON file {prompt: path of its picture}:
    `paths`. Without it, for the prompt with the number 12 (its line, from 0):

        00012.png
        0012.png        as `generate` writes it
        12.png

    The overall figure is the GM (see `geneval2.py`).

    Args:
        judge: Who tells how probable the expected answers are.
        paths: The JSON file; its paths start at the folder of pictures, or where the command runs. All of the pictures
            must be in the folder.
    """

    mixed_sizes = True

    def __init__(self, judge: ShortAnswerJudge, paths: str | None = None) -> None:
        super().__init__()
        self.asked = judge
        self.paths = paths

    def read_items(self, path: Path) -> ItemFile[geneval2.AtomPrompt]:
        read = geneval2.read_prompts(path)
        return ItemFile(items=read.prompts, sha256=read.sha256, version=geneval2.PUBLISHED.get(read.sha256))

    def pictures(self, folder: Path, item: geneval2.AtomPrompt) -> list[Picture]:
        if self.paths is None:
            number = int(item.id)
            file, tried = first_file(folder, [item.id, *numbered("", number)])
            return [Picture(item=item.id, sample=0, file=file, tried=tuple(dict.fromkeys(tried)))]
        named = self._of_prompts.get(item.prompt)
        if named is None:
            return [Picture(item=item.id, sample=0, file=None, tried=(f"no path of the prompt in {self.paths}",))]
        file = next((one for one in (folder / str(named), Path(str(named))) if one.is_file()), None)
        if file is not None:
            if not file.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{self.paths}: {named} is not in {folder}: give a folder of pictures that holds all")
            file = folder / file.resolve().relative_to(folder.resolve())
        return [Picture(item=item.id, sample=0, file=file, tried=(str(named),))]

    def place(self, item: geneval2.AtomPrompt, sample: int) -> str:
        return item.id

    def prompt(self, item: geneval2.AtomPrompt) -> str:
        return item.prompt

    def made_by(self) -> dict[str, str]:
        return {"judge": self.asked.name, "protocol": "one question at a time, probability of the expected answer"}

    def preflight(self, items: Sequence[geneval2.AtomPrompt]) -> None:
        self.asked.preflight()

    def judge(
        self, images: Sequence[np.ndarray], items: Sequence[geneval2.AtomPrompt], pictures: Sequence[Picture]
    ) -> list[Row | str]:
        found = geneval2.ask(self.asked, items, images)
        return [
            {"probabilities": rounded(one.record.scores)} if isinstance(one, Judged) else one.message for one in found
        ]

    def worth(self, item: geneval2.AtomPrompt, row: Row) -> float:
        """The geometric mean."""
        return geneval2.geometric_mean(row["probabilities"])

    def told(self, item: geneval2.AtomPrompt, row: Row) -> list[str]:
        pairs = zip(row["probabilities"], item.questions, strict=True)
        return [f"{probability:.2f}  {asked.text} {asked.answer}" for probability, asked in pairs]

    def score(self, items: Sequence[geneval2.AtomPrompt], rows: Sequence[Row], mode: Mode) -> Scored:
        given = [geneval2.AtomScores(prompt=row["id"], scores=tuple(row["probabilities"])) for row in rows]
        scores = geneval2.score(given, items, mode)
        return Scored(headline=scores.gm, figures=scores.figures(), table=scores.table(), coverage=scores.coverage)

    @cached_property
    def _of_prompts(self) -> dict[str, object]:
        """Prompt -> path of its picture, as the JSON file says."""
        assert self.paths is not None
        return dict(read_object(Path(self.paths), "the paths of GenEval2's pictures, {prompt: path},"))
