"""The prompt datasets of the embedded world: `python -m project.shapes.prompts data/shapes` writes them again.

`python -m project.shapes.prompts DIRECTORY SEED` draws others of the same kinds, whose ids begin with "freshSEED-" and
so have noise of their own: to measure on more prompts than training was ever judged by.

    train.jsonl   2000 RL prompts, evenly over kinds; set "direct" (40%) or "indirect" (60%), on seen and practised
                  compositions half and half; about 60% of the descriptors are unseen in pre-training, and most
                  objects have one of their two attributes said plainly
    eval.jsonl    5 sets of 520 prompts, 104 of each kind:
        direct             direct prompts, seen compositions
        direct_practised   direct prompts, practised compositions
        direct_heldout     direct prompts, held-out compositions
        indirect           indirect prompts, seen compositions, all descriptors equally likely
        indirect_heldout   the same on held-out compositions
    edit_train.jsonl  400 instructions with the picture that they change, 100 of each kind (colour, count, size,
                  position), set "edit", seen and practised compositions half and half
    edit.jsonl    3 sets of instructions, 130 of each kind:
        edit               70 of each kind, seen compositions
        edit_practised     30 of each kind, practised compositions
        edit_heldout       30 of each kind, held-out compositions

Rows have the published form (`prompt`, `original_index`, `semantic_questions`, `quality_questions`) and the columns
`id`, `kind`, `split`, `set`; prompts also have `indirect` and `scene` (for `Scene.from_dict`), instructions the
`layout` of the picture to edit (for `Layout.from_dict`; `project.shapes.editing.rendered_source` renders it). A
question is `{"question", "tag"}` and, where it depends on others, `depends_on`: their positions in semantic + quality
questions. Some texts occur in several rows (there are only 6 practised single scenes), each with an `id` of its own;
no text of the held-out sets of eval.jsonl stands in train.jsonl, because their compositions do not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from project.core.atomic_files import write_atomically
from project.shapes.decomposer import scene_questions
from project.shapes.editing import EDIT_KINDS, Edit, questions, sample_edit
from project.shapes.grammar import COLOUR_DESCRIPTORS, SHAPE_DESCRIPTORS, describe, sample_disguises
from project.shapes.scenes import KINDS, Scene
from project.shapes.split import (
    UNSEEN_COLOUR_DESCRIPTORS,
    UNSEEN_SHAPE_DESCRIPTORS,
    Split,
    sample_scene_of,
)
from project.trajectory import Question

TRAIN_ROWS = 2000
EVAL_ROWS_PER_KIND = 104
EVAL_SETS: dict[str, tuple[Split, bool]] = {
    "direct": ("seen", False),
    "direct_practised": ("practised", False),
    "direct_heldout": ("held_out", False),
    "indirect": ("seen", True),
    "indirect_heldout": ("held_out", True),
}
"""Per set the split of its compositions and whether its prompts are indirect."""
EDIT_TRAIN_ROWS = 400
EDIT_SETS: dict[str, tuple[Split, int]] = {
    "edit": ("seen", 70),
    "edit_practised": ("practised", 30),
    "edit_heldout": ("held_out", 30),
}
"""Per set the split of its compositions and the number of rows of each kind."""
_EMPHASIS = 9
"""In train.jsonl an unseen descriptor is this many times as likely as its value's other one: two thirds of the
values have one, so 2/3 * 9/10 = 60% of the descriptors are unseen."""
_BOTH = 0.1
"""Share of the objects of train.jsonl with both attributes disguised (evaluation: 0.6). What a word means is found
out much sooner where it is the only unknown."""


def training_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of train.jsonl."""
    rng = np.random.default_rng([seed, 0])
    colours = _emphasised(COLOUR_DESCRIPTORS, UNSEEN_COLOUR_DESCRIPTORS)
    shapes = _emphasised(SHAPE_DESCRIPTORS, UNSEEN_SHAPE_DESCRIPTORS)
    for index in range(TRAIN_ROWS):
        # The kind changes fastest, so that any stretch of the file is even.
        kind = KINDS[index % len(KINDS)]
        turn = index // len(KINDS) % 10
        split: Split = "practised" if turn % 2 else "seen"
        indirect = turn < 6
        scene = sample_scene_of(rng, kind, split)
        disguises = sample_disguises(rng, scene, colours, shapes, both=_BOTH) if indirect else None
        prompt = describe(scene, disguises)
        yield _row(prompt, scene, index=index, split=split, name="indirect" if indirect else "direct", file="train")


def evaluation_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of eval.jsonl, set by set, kinds in turn."""
    for number, (name, (split, indirect)) in enumerate(EVAL_SETS.items()):
        rng = np.random.default_rng([seed, 1, number])
        colours, shapes = COLOUR_DESCRIPTORS, SHAPE_DESCRIPTORS
        for index in range(EVAL_ROWS_PER_KIND * len(KINDS)):
            scene = sample_scene_of(rng, KINDS[index % len(KINDS)], split)
            prompt = describe(scene, sample_disguises(rng, scene, colours, shapes) if indirect else None)
            yield _row(prompt, scene, index=index, split=split, name=name, file="eval")


def edit_training_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of edit_train.jsonl, kinds in turn."""
    rng = np.random.default_rng([seed, 2])
    for index in range(EDIT_TRAIN_ROWS):
        split: Split = "practised" if index // len(EDIT_KINDS) % 2 else "seen"
        edit = sample_edit(rng, EDIT_KINDS[index % len(EDIT_KINDS)], split)
        yield _edit_row(edit, index=index, split=split, name="edit", file="edit_train")


def edit_evaluation_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of edit.jsonl, set by set, kinds in turn."""
    for number, (name, (split, rows)) in enumerate(EDIT_SETS.items()):
        rng = np.random.default_rng([seed, 3, number])
        for index in range(rows * len(EDIT_KINDS)):
            edit = sample_edit(rng, EDIT_KINDS[index % len(EDIT_KINDS)], split)
            yield _edit_row(edit, index=index, split=split, name=name, file="eval")


def _emphasised(descriptors: dict[str, tuple[str, str]], unseen: frozenset[str]) -> dict[str, list[str]]:
    return {
        value: [word for word in words for _ in range(_EMPHASIS if word in unseen else 1)]
        for value, words in descriptors.items()
    }


def _row(prompt: str, scene: Scene, *, index: int, split: Split, name: str, file: str) -> dict[str, Any]:
    return {
        "id": f"{file}-{name}-{index:04d}",
        "prompt": prompt,
        "original_index": index,
        "kind": scene.kind,
        "split": split,
        "set": name,
        "indirect": name.startswith("indirect"),
        "scene": scene.to_dict(),
        **_asked(scene_questions(scene)),
    }


def _edit_row(edit: Edit, *, index: int, split: Split, name: str, file: str) -> dict[str, Any]:
    return {
        "id": f"{file}-{name}-{index:04d}",
        "prompt": edit.instruction,
        "original_index": index,
        "kind": edit.kind,
        "split": split,
        "set": name,
        "layout": edit.source.to_dict(),
        **_asked(questions(edit)),
    }


def _asked(questions: Sequence[Question]) -> dict[str, Any]:
    return {
        "semantic_questions": [_question(asked) for asked in questions if asked.kind == "semantic"],
        "quality_questions": [_question(asked) for asked in questions if asked.kind == "quality"],
    }


def _question(asked: Question) -> dict[str, Any]:
    row: dict[str, Any] = {"question": asked.text, "tag": asked.tag}
    if asked.depends_on:
        row["depends_on"] = list(asked.depends_on)
    return row


def write_prompts(directory: str | Path, seed: int = 0) -> None:
    """Write the four files into `directory` (created if need be); the same seed gives the same bytes.

    The rows of data/shapes are those of seed 0.
    """
    directory = Path(directory)
    files = {
        "train.jsonl": training_rows(seed),
        "eval.jsonl": evaluation_rows(seed),
        "edit_train.jsonl": edit_training_rows(seed),
        "edit.jsonl": edit_evaluation_rows(seed),
    }
    for name, rows in files.items():
        marked = (row | {"id": f"fresh{seed}-{row['id']}"} if seed else row for row in rows)
        lines = (json.dumps(row, separators=(",", ":")) + "\n" for row in marked)
        write_atomically(directory / name, "".join(lines))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or not all(text.isdecimal() for text in sys.argv[2:]):
        sys.exit("usage: python -m project.shapes.prompts DIRECTORY [SEED]")
    write_prompts(sys.argv[1], *map(int, sys.argv[2:]))
