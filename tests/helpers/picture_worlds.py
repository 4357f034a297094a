"""Small benchmarks of the embedded world in the official formats, with pictures, for `python -m project score`."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from project.__main__ import main
from project.benchmarks import dpg
from project.shapes.questions import parse_question
from project.shapes.renderer import render
from project.shapes.scenes import Layout, Scene, sample_layout
from tests.helpers import ROOT
from tests.helpers.score_runs import save, write_rows

DETECTOR = "project.shapes.DetectorJudge"


@dataclass(frozen=True)
class Drawn:
    """A prompt of the embedded world with its questions, and a picture that shows it or something else."""

    prompt: str
    questions: tuple[str, ...]
    layout: Layout

    @property
    def picture(self) -> np.ndarray:
        return render(self.layout)

    @property
    def truth(self) -> tuple[str, ...]:
        """The right answers to the questions about the picture."""
        asked = [parse_question(text) for text in self.questions]
        return tuple("yes" if one is not None and one.holds(self.layout) else "no" for one in asked)


def drawn(number: int, seed: int = 0) -> list[Drawn]:
    """Every third picture shows the scene of another prompt."""
    rng = np.random.default_rng(seed)
    rows = [json.loads(line) for line in (ROOT / "data/shapes/eval.jsonl").read_text().splitlines()[: number + 1]]
    found = []
    for n in range(number):
        scene = Scene.from_dict(rows[n + (n % 3 == 1)]["scene"])
        questions = tuple(question["question"] for question in rows[n]["semantic_questions"])
        found.append(Drawn(rows[n]["prompt"], questions, sample_layout(rng, scene)))
    return found


TYPES = ("shape+color", "text")
LINES = 3


@dataclass(frozen=True)
class TIIFWorld:
    """A small TIIF-Bench in a folder."""

    folder: Path
    drawn: dict[str, Drawn]
    """Item -> what its picture shows."""

    def command(self, out: str, *more: str, judge: Sequence[str] = ("--judge", DETECTOR)) -> list[str]:
        words = ["score", "--benchmark", "tiif", "--items", str(self.folder / "data"), *judge, *more]
        pictures = [] if "--pictures" in more else ["--pictures", str(self.folder / "output")]
        return [*words, *pictures, "--out", str(self.folder / out)]

    def run(self, out: str, *more: str, **options: Any) -> int:
        return main(self.command(out, *more, **options))

    def file(self, item: str, model: str = "mine") -> Path:
        kind, line, length = item.split("/")
        return self.folder / "output" / kind / model / f"{length}_description" / f"{line}.png"


def write_tiif_world(folder: Path) -> TIIFWorld:
    """Prompts, questions and pictures in the official layout."""
    made = iter(drawn(len(TYPES) * LINES * 2))
    found: dict[str, Drawn] = {}
    for kind in TYPES:
        prompts, questions = [], []
        for line in range(LINES):
            short, long = next(made), next(made)
            prompts.append({"type": kind, "short_description": short.prompt, "long_description": long.prompt})
            asked = short.questions + long.questions
            answers = ["yes"] * len(short.questions) + ["no"] * len(long.questions)
            questions.append({"type": kind, "yn_question_list": asked, "yn_answer_list": answers})
            for length, one in (("short", short), ("long", long)):
                found[f"{kind}/{line}/{length}"] = Drawn(one.prompt, asked, one.layout)
        write_rows(folder / f"data/testmini_prompts/{kind}_prompts.jsonl", prompts)
        write_rows(folder / f"data/testmini_eval_prompts/{kind}_eval_prompts.jsonl", questions)
    world = TIIFWorld(folder, found)
    for item, one in found.items():
        save(one.picture, world.file(item))
    return world


@dataclass(frozen=True)
class DPGWorld:
    """A small DPG-Bench in a folder."""

    folder: Path
    drawn: dict[str, list[Drawn]]
    """Item -> what its four pictures show."""

    def run(self, pictures: str, out: str, *more: str) -> int:
        words = ["--items", str(self.folder / "dpg_bench.csv"), "--pictures", str(self.folder / pictures)]
        return main(
            ["score", "--benchmark", "dpg", *words, "--judge", DETECTOR, "--out", str(self.folder / out), *more]
        )


def write_dpg_world(folder: Path) -> DPGWorld:
    """Prompts with questions, and the same pictures in every layout."""
    made = drawn(16, seed=1)
    found = {}
    with (folder / "dpg_bench.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow([*dpg.COLUMNS])
        for n in range(4):
            four = made[4 * n : 4 * n + 4]
            # The questions are those of the first: its other pictures show something else.
            found[f"item{n}"] = [Drawn(four[0].prompt, four[0].questions, one.layout) for one in four]
            for number, question in enumerate(four[0].questions, start=1):
                parent = 0 if number == 1 else 1
                kind = "entity - whole (shape)" if number == 1 else "attribute - color (shape, color)"
                table.writerow([f"item{n}", four[0].prompt, number, parent, kind, question])
    for name, four in found.items():
        pictures = [one.picture for one in four]
        top, bottom = np.concatenate(pictures[:2], axis=1), np.concatenate(pictures[2:], axis=1)
        save(np.concatenate([top, bottom]), folder / "grids" / f"{name}.png")
        for sample, picture in enumerate(pictures):
            save(picture, folder / "folders" / name / f"{sample}.png")
            save(picture, folder / "files" / f"{name}_{sample:04d}.webp", lossless=True)
    return DPGWorld(folder, found)


METADATA = (
    {"tag": "single_object", "prompt": "a photo of a cup", "include": [{"class": "cup", "count": 1}]},
    {"tag": "colors", "prompt": "a photo of a red cup", "include": [{"class": "cup", "count": 1, "color": "red"}]},
    {"tag": "colors", "prompt": "a photo of a blue cup", "include": [{"class": "cup", "count": 1, "color": "blue"}]},
)


def geneval(folder: Path, out: str, *more: str, pictures: str = "pictures") -> int:
    words = ["--items", str(folder / "evaluation_metadata.jsonl"), "--pictures", str(folder / pictures)]
    return main(["score", "--benchmark", "geneval", *words, "--out", str(folder / out), *more])


def write_geneval(folder: Path) -> list[np.ndarray]:
    """Items, and four pictures of each in the official layout."""
    write_rows(folder / "evaluation_metadata.jsonl", METADATA)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(4 * len(METADATA))]
    for n, picture in enumerate(pictures):
        save(picture, folder / f"pictures/{n // 4:05d}/samples/{n % 4:04d}.png")
        save(picture, folder / f"drawn/{n // 4:04d}{f'_{n % 4}' if n % 4 else ''}.png")
    return pictures
