"""All published benchmarks in their official formats, with prompts and pictures of the embedded world.

`write_all` writes the files, and `all.yaml` with a `PublishedBenchmark` of each over configs/shapes/demo.yaml.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from project.benchmarks import dpg, gedit, wise
from project.data.prompts import read_prompts
from project.shapes.editing import rendered_source
from project.trajectory import Prompt
from tests.helpers import ROOT, chat_server, tiny_benchmarks, tiny_geneval
from tests.helpers.score_runs import grey, save, write_rows

DETECTOR = {"class_path": "project.shapes.DetectorJudge"}
COLOUR_OF_CUPS = "red"
SETTINGS: dict[str, Any] = {
    "data": {"init_args": {"eval_batch_size": 8, "val": None}},
    "trainer": {"limit_val_batches": 1.0, "enable_progress_bar": False, "callbacks": []},
    "model": {"init_args": {"evaluation": {"schedule": {"num_steps": 4}}}},
}
"""Of the run: few steps, and nothing else to draw."""


def drawn() -> list[Prompt]:
    """Prompts of the embedded world, of all kinds."""
    return read_prompts(ROOT / "data/shapes/eval.jsonl")[::97]


def edited() -> list[Prompt]:
    """Instructions of the embedded world, of all kinds, each with another text."""
    found = read_prompts(ROOT / "data/shapes/edit.jsonl")
    return list({prompt.text: prompt for prompt in found}.values())


def write_geneval(folder: Path) -> Path:
    rows = [
        {"tag": "colors", "prompt": drawn()[n].text, "include": [{"class": "cup", "count": 1, "color": COLOUR_OF_CUPS}]}
        for n in range(2)
    ]
    return write_rows(folder / "evaluation_metadata.jsonl", rows)


def write_geneval2(folder: Path) -> Path:
    rows = [
        {
            "prompt": prompt.text,
            "atom_count": 2,
            "vqa_list": [[question.text, "Yes"] for question in prompt.questions[:2]],
            "skills": ["object", "attribute"],
        }
        for prompt in drawn()[:3]
    ]
    return write_rows(folder / "geneval2_data.jsonl", rows)


def write_tiif(folder: Path) -> Path:
    first, second = drawn()[:2]
    rows = [{"type": "shape+color", "short_description": first.text, "long_description": second.text}]
    asked = [question.text for question in first.questions[:3]]
    questions = [{"type": "shape+color", "yn_question_list": asked, "yn_answer_list": ["yes", "yes", "no"]}]
    write_rows(folder / "testmini_prompts/shape+color_prompts.jsonl", rows)
    write_rows(folder / "testmini_eval_prompts/shape+color_eval_prompts.jsonl", questions)
    return folder


def write_dpg(folder: Path, prompts: Sequence[Prompt] = ()) -> Path:
    """The questions of some prompts of the embedded world."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dpg_bench.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow([*dpg.COLUMNS])
        for n, prompt in enumerate(prompts or drawn()[:2]):
            for number, question in enumerate(prompt.questions[:3], start=1):
                kind = "entity - whole (shape)" if number == 1 else "attribute - color (color)"
                table.writerow([f"item{n}", prompt.text, number, int(number > 1), kind, question.text])
    return folder / "dpg_bench.csv"


def write_wise(folder: Path, edition: wise.Edition) -> Path:
    prompts = iter(drawn())
    folder.mkdir(parents=True, exist_ok=True)
    for name, categories in wise.FILES.items():
        rows = []
        for category in categories:
            prompt = next(prompts)
            number = wise.RANGES[edition][category][0]
            row = {"prompt_id": number, "Prompt": prompt.text, "Explanation": f"it shows {prompt.text}"}
            rows.append({**row, "Category": category, "Subcategory": "shapes"})
        suffix = "_verified" if edition == "verified" else ""
        (folder / f"{name}{suffix}.json").write_text(json.dumps(rows))
    return folder


def write_gedit(folder: Path) -> Path:
    """An edit of each group, in English, and in Chinese, which the embedded model cannot read."""
    rows: list[dict[str, Any]] = []
    for group, prompt in zip(gedit.GROUPS, edited(), strict=False):
        source = f"sources/{group}.png"
        save(rendered_source(prompt), folder / source)
        for language in gedit.LANGUAGES:
            text = prompt.text if language == "en" else f"把图改一下 {len(rows)}"
            row = {"task_type": group, "key": "a", "instruction": text, "instruction_language": language}
            rows.append({**row, "input_image": source, "Intersection_exist": True})
    return write_rows(folder / "gedit.jsonl", rows)


def write_imgedit(folder: Path) -> Path:
    rows = {}
    for n, prompt in enumerate(edited()[-2:]):
        save(rendered_source(prompt), folder / f"shapes/{n}.png")
        rows[str(100 + n)] = {"id": f"shapes/{n}.png", "prompt": prompt.text, "edit_type": ("add", "style")[n]}
    (folder / "basic_edit.json").write_text(json.dumps(rows))
    return folder / "basic_edit.json"


def answer(pictures: list[np.ndarray], text: str, attempt: int) -> str:
    """What the judge of free text writes: scores that hang on every pixel of the last picture."""
    level = zlib.crc32(pictures[-1].tobytes()) % 199
    return tiny_benchmarks.written([grey(level) for _ in pictures], text, attempt)


def write_all(folder: Path, server: str) -> dict[str, dict[str, Any]]:
    """Name of each benchmark -> the arguments of its `PublishedBenchmark`, as they stand in `all.yaml`.

    `server` is the address of a `ChatServer` whose writer is `answer`.
    """

    def judge(kind: str) -> dict[str, Any]:
        return {"class_path": f"project.judges.{kind}", "init_args": chat_server.options(server)}

    def pictures(kind: str, **arguments: Any) -> dict[str, Any]:
        return {"class_path": f"project.benchmarks.{kind}Pictures", "init_args": arguments}

    writer = judge("OpenAIFreeTextJudge")
    sides = {"short_side": 64, "long_side": 96, "minimum_score": 0.0}
    detector = {"model": tiny_geneval.write_tiny_mask2former(folder / "mask2former"), **sides}
    colors = {"model": tiny_geneval.write_tiny_clip(folder / "clip")}
    of_geneval = {
        "detector": {"class_path": "project.benchmarks.Mask2FormerDetector", "init_args": detector},
        "colors": {"class_path": "project.benchmarks.CLIPColors", "init_args": colors},
    }
    whole, late = {"interval": [0.0, 1.0]}, {"interval": [0.4, 1.0]}
    made: dict[str, tuple[dict[str, Any], Path, dict[str, Any]]] = {
        "geneval": (pictures("GenEval", samples=2, **of_geneval), write_geneval(folder / "geneval"), whole),
        "geneval2": (
            pictures("GenEval2", judge=judge("OpenAIShortAnswerJudge")),
            write_geneval2(folder / "geneval2"),
            whole,
        ),
        "tiif": (pictures("TIIF", judge=DETECTOR), write_tiif(folder / "tiif"), late),
        "dpg": (pictures("DPG", judge=DETECTOR, samples=2), write_dpg(folder / "dpg"), whole),
        "wise_verified": (
            pictures("WISE", judge=writer, edition="verified"),
            write_wise(folder / "wise", "verified"),
            late,
        ),
        "wise_legacy": (pictures("WISE", judge=writer), write_wise(folder / "wise", "legacy"), late),
        "gedit": (pictures("GEdit", judge=writer), write_gedit(folder / "gedit"), {"text": 4.0, "image": 1.5, **late}),
        "imgedit": (pictures("ImgEdit", judge=writer), write_imgedit(folder / "imgedit"), {"image": 1.5}),
    }
    arguments = {
        name: {"pictures": kind, "items": str(items), "guidance": guidance, "name": name}
        for name, (kind, items, guidance) in made.items()
    }
    published = [
        {"class_path": "project.benchmarks.PublishedBenchmark", "init_args": one} for one in arguments.values()
    ]
    (folder / "all.yaml").write_text(yaml.safe_dump({"benchmarks": published, **SETTINGS}))
    return arguments
