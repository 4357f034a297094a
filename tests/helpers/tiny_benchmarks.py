"""Small files in the official formats of the benchmarks of pictures, made here, and a judge's answers to them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from project.benchmarks import dpg, gedit, imgedit, wise
from tests.helpers.score_runs import grey, save, write_rows


def write_wise(folder: Path, edition: wise.Edition = "legacy", each: int = 2) -> Path:
    """The three files of an edition, with the first prompts of each category."""
    suffix = "_verified" if edition == "verified" else ""
    folder.mkdir(parents=True, exist_ok=True)
    for name, categories in wise.FILES.items():
        rows = [
            {
                "prompt_id": number,
                "Prompt": f"what comes to mind at {number}",
                "Explanation": f"the number {number}",
                "Category": category,
                "Subcategory": "number",
            }
            for category in categories
            for number in wise.RANGES[edition][category][:each]
        ]
        (folder / f"{name}{suffix}.json").write_text(json.dumps(rows))
    return folder


def write_gedit(folder: Path, each: int = 1) -> Path:
    """A dataset as .jsonl with its source pictures: edits of all groups, in both languages, of the same keys."""
    rows: list[dict[str, Any]] = []
    for n, group in enumerate(gedit.GROUPS):
        for language in gedit.LANGUAGES:
            for key in range(each):
                source = f"sources/{group}/{key}.png"
                save(grey(10 * n + key), folder / source)
                rows.append(
                    {
                        "task_type": group,
                        "key": f"key{key}",
                        "instruction": f"{language}: make it lighter by {n}",
                        "instruction_language": language,
                        "input_image": source,
                        "Intersection_exist": key == 0,
                    }
                )
    return write_rows(folder / "gedit.jsonl", rows)


def write_imgedit(folder: Path) -> Path:
    """Three edits of two types with their source pictures."""
    rows = {}
    for n, kind in enumerate(("add", "style", "add")):
        save(grey(n), folder / f"animal/{n}.png")
        rows[str(100 + n)] = {"id": f"animal/{n}.png", "prompt": f"make it lighter by {n}", "edit_type": kind}
    (folder / "basic_edit.json").write_text(json.dumps(rows))
    return folder / "basic_edit.json"


def write_geneval2(folder: Path) -> Path:
    """Three prompts of 1, 2 and 2 atoms."""
    cat = ["Are there any cats in the image?", "Yes"]
    rows = [
        {"prompt": "a cat", "atom_count": 1, "vqa_list": [cat], "skills": ["object"]},
        {
            "prompt": "a red cat",
            "atom_count": 2,
            "vqa_list": [cat, ["Is the cat red?", "Yes"]],
            "skills": ["object", "attribute"],
        },
        {
            "prompt": "two cats",
            "atom_count": 2,
            "vqa_list": [["How many cats are in the image?", "two"], cat],
            "skills": ["count", "object"],
        },
    ]
    return write_rows(folder / "geneval2_data.jsonl", rows)


def write_tiif(folder: Path) -> Path:
    """Two lines of two types, with both lengths; not every right answer is yes."""
    for kind in ("text", "shape+color"):
        prompts = [
            {"type": kind, "short_description": f"{n} cats", "long_description": f"a picture of {n} cats"}
            for n in range(2)
        ]
        questions = [
            {
                "type": kind,
                "yn_question_list": [f"Is it a cat {n}?", "Is it a dog?", "Is it red?"],
                "yn_answer_list": ["yes", "no", "yes"],
            }
            for n in range(2)
        ]
        write_rows(folder / f"testmini_prompts/{kind}_prompts.jsonl", prompts)
        write_rows(folder / f"testmini_eval_prompts/{kind}_eval_prompts.jsonl", questions)
    return folder


def write_dpg(folder: Path) -> Path:
    """Two prompts with three questions each."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dpg_bench.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow([*dpg.COLUMNS])
        for n in range(2):
            table.writerow([f"item{n}", f"{n} cats", 1, 0, "entity - whole (cat)", "Is there a cat?"])
            table.writerow([f"item{n}", f"{n} cats", 2, 1, "attribute - color (cat)", "Is it red?"])
            table.writerow([f"item{n}", f"{n} cats", 3, 0, "entity - whole (dog)", f"Are there {n} dogs?"])
    return folder / "dpg_bench.csv"


def write_geneval(folder: Path) -> Path:
    """Two prompts without colours."""
    rows = [
        {"tag": "single_object", "prompt": f"a photo of a {name}", "include": [{"class": name, "count": 1}]}
        for name in ("cup", "dog")
    ]
    return write_rows(folder / "evaluation_metadata.jsonl", rows)


def write_detections(file: Path) -> Path:
    """Detections of the pictures of `write_geneval`: a cup in each."""
    found = [{"class": "cup", "box": [1, 1, 9, 9], "score": 0.95}]
    rows = [{"picture": f"{n:05d}/{m}", "detections": found} for n in range(2) for m in range(4)]
    return write_rows(file, rows)


OFFICIAL: dict[str, Callable[[Path], Path]] = {
    "WISEPictures": write_wise,
    "GEditPictures": write_gedit,
    "ImgEditPictures": write_imgedit,
    "GenEval2Pictures": write_geneval2,
    "TIIFPictures": write_tiif,
    "DPGPictures": write_dpg,
    "GenEvalPictures": write_geneval,
}
"""Class of a benchmark of pictures -> who writes a small official file or folder into a folder, and returns it."""


def written(pictures: list[np.ndarray], text: str, attempt: int = 0) -> str:
    """What a judge writes: scores that follow the lightness of the last picture."""
    level = int(pictures[-1].flat[0]) if pictures else 0
    if "Consistency:" in text:
        return f"Consistency: {level % 3}\nRealism: {level // 3 % 3}\nAesthetic Quality: {level // 9 % 3}"
    if "Prompt Compliance:" in text:
        scores = imgedit.answer_text([1 + level % 5, 1 + level // 2 % 5, 1 + level // 3 % 5])
        return f"Brief reasoning: its level is {level}\n{scores}"
    if "Write the digit" in text:
        return str(level % 2)
    if '"score"' in text:
        score = level % 11 if len(pictures) == 2 else (level + 3) % 11
        return json.dumps({"score": [score, 10], "reasoning": f"its level is {level}"})
    if "single word, yes or no" in text:
        questions = sum(line[:1].isdigit() and ". " in line for line in text.splitlines())
        return "\n".join("yes" if (level + n) % 3 else "no" for n in range(questions))
    return "yes"
