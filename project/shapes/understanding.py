"""Questions about rendered pictures of the embedded world: what its model knows of pictures before training by RL.

`python -m project.shapes.understanding data/shapes/understanding.jsonl` writes the file again (seed 0); a second
argument is the seed of others. There are 100 rows of each set:

    colour, shape, number    "describe" about a seen composition; right is a description with its colour, shape, number
    count, coherence         yes/no questions of that tag on all compositions, as many yes as no

The checkpoint can do these. It learned questions on existence, attributes and places too (see `examples.question`), but
answers them alike whatever the picture shows: an accuracy of one half that training cannot lower. They are left out.

`asked_picture` renders the `layout` of a row. One with a `fault` gets an uneven background, drawn with that seed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from project.core.atomic_files import write_atomically
from project.shapes.degradation import with_uneven_background
from project.shapes.grammar import COUNT_WORDS, DESCRIBE
from project.shapes.probes import SPOILED, sample_question
from project.shapes.reading import COLOUR_NAMES
from project.shapes.renderer import render
from project.shapes.scenes import SHAPES, Kind, Layout, sample_layout
from project.shapes.split import sample_scene_of
from project.trajectory import Prompt

ROWS_PER_SET = 100
DESCRIBED: dict[str, tuple[tuple[Kind, ...], tuple[str, ...]]] = {
    "colour": (("single", "size", "count"), COLOUR_NAMES),
    "shape": (("single", "size"), SHAPES),
    "number": (("single", "count"), tuple(COUNT_WORDS)),
}
"""Per set of descriptions the kinds of scenes, and the words of which a description must name the right one alone."""
ASKED = ("Count", "Coherence")
"""Tags of the yes/no questions."""


def question_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of understanding.jsonl, sets in turn."""
    rng = np.random.default_rng([seed, 4])
    for index in range(ROWS_PER_SET):
        for name in DESCRIBED:
            yield _described(rng, name, index)
        for tag in ASKED:
            yield _asked(rng, tag, index)


def _described(rng: np.random.Generator, name: str, index: int) -> dict[str, Any]:
    kinds, words = DESCRIBED[name]
    scene = sample_scene_of(rng, kinds[index % len(kinds)], "seen")
    (thing,) = scene.objects
    right = {"colour": thing.colour, "shape": thing.shape, "number": COUNT_WORDS[scene.count - 1]}[name]
    return {
        "id": f"understanding-{name}-{index:04d}",
        "question": DESCRIBE,
        "choices": list(words),
        "answer": right,
        "set": name,
        "kind": "describe",
        "layout": sample_layout(rng, scene).to_dict(),
    }


def _asked(rng: np.random.Generator, tag: str, index: int) -> dict[str, Any]:
    truth = index % 2 == 0
    _, layout, question = sample_question(rng, tag, truth=truth)
    spoiled = tag in SPOILED and not truth
    return {
        "id": f"understanding-{tag.lower()}-{index:04d}",
        "question": question.text,
        "answer": "yes" if truth else "no",
        "set": tag.lower(),
        "kind": "yes_no",
        "layout": layout.to_dict(),
        **({"fault": int(rng.integers(2**31))} if spoiled else {}),
    }


def asked_picture(prompt: Prompt) -> np.ndarray:
    """The picture that a row asks about, uint8 [64, 64, 3]. Raises ValueError, naming the row's place, for others."""
    fault = prompt.columns.get("fault")
    try:
        if "layout" not in prompt.columns:
            raise ValueError("it has no `layout`: see data/shapes/understanding.jsonl")
        layout = Layout.from_dict(prompt.columns["layout"])
    except ValueError as error:
        where = f"{prompt.place}: " if prompt.place else ""
        raise ValueError(f"{where}question {prompt.id!r}: {error}") from None
    return render(layout) if fault is None else with_uneven_background(np.random.default_rng(fault), layout)


def write_questions(file: str | Path, seed: int = 0) -> None:
    """Writes the questions; the same seed gives the same bytes."""
    marked = (row | {"id": f"fresh{seed}-{row['id']}"} if seed else row for row in question_rows(seed))
    write_atomically(Path(file), "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in marked))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or not all(text.isdecimal() for text in sys.argv[2:]):
        sys.exit("usage: python -m project.shapes.understanding FILE [SEED]")
    write_questions(sys.argv[1], *map(int, sys.argv[2:]))
