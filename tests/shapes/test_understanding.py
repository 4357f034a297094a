"""The questions of the embedded world: the file is what is written again, and every answer is true of its picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from project.data.choices import choices_of
from project.data.prompts import read_prompts
from project.shapes.detector import detect
from project.shapes.questions import parse_question
from project.shapes.renderer import render
from project.shapes.scenes import Layout
from project.shapes.split import pair_split
from project.shapes.understanding import ASKED, DESCRIBED, ROWS_PER_SET, asked_picture, write_questions
from project.trajectory import Prompt
from tests.helpers import ROOT

FILE = ROOT / "data/shapes/understanding.jsonl"


def test_the_file_is_what_is_written_again(tmp_path: Path) -> None:
    write_questions(tmp_path / "same.jsonl")
    assert (tmp_path / "same.jsonl").read_bytes() == FILE.read_bytes()
    write_questions(tmp_path / "other.jsonl", seed=1)
    other = read_prompts(tmp_path / "other.jsonl")
    assert all(prompt.id.startswith("fresh1-understanding-") for prompt in other)
    assert [prompt.columns for prompt in other] != [prompt.columns for prompt in read_prompts(FILE)]


def test_every_answer_is_true_of_its_picture() -> None:
    prompts = read_prompts(FILE)
    pixels = np.stack([asked_picture(prompt) for prompt in prompts])
    pictures = detect(pixels)
    for n, prompt in enumerate(prompts):
        layout = Layout.from_dict(prompt.columns["layout"])
        choices, name = choices_of(prompt), prompt.columns["set"]
        right = choices.options[choices.right]
        if name in DESCRIBED:
            things = [thing for _, thing in layout.things]
            assert len({(thing.colour, thing.shape) for thing in things}) == 1
            assert pair_split(things[0].colour, things[0].shape) == "seen"
            number = ("a", "two", "three", "four")[len(things) - 1]
            assert right == {"colour": things[0].colour, "shape": things[0].shape, "number": number}[name]
            continue
        question = parse_question(prompt.text)
        assert question is not None and choices.yes_no
        if name == "count":
            assert (question.probability(pictures[n])[0] > 0.5) == (right == "yes"), prompt.id
        shade = render(layout).astype(int) - pixels[n]
        assert shade.any() == (name == "coherence" and right == "no") and (not shade.any() or shade.max() > 30)


def test_sets_are_even_and_answers_balanced() -> None:
    prompts = read_prompts(FILE)
    sets = [*DESCRIBED, *(tag.lower() for tag in ASKED)]
    assert Counter(prompt.columns["set"] for prompt in prompts) == dict.fromkeys(sets, ROWS_PER_SET)
    yes = Counter(p.columns["set"] for p in prompts if p.columns["answer"] == "yes")
    assert yes == {tag.lower(): ROWS_PER_SET / 2 for tag in ASKED}
    assert min(Counter(p.columns["answer"] for p in prompts if p.columns["set"] == "number").values()) >= 10


def test_a_row_without_a_picture_is_named() -> None:
    with pytest.raises(ValueError, match=r"^q.jsonl:3: question 'a': it has no `layout`"):
        asked_picture(Prompt(id="a", text="describe", place="q.jsonl:3"))
    with pytest.raises(ValueError, match=r"^question 'a': "):
        asked_picture(Prompt(id="a", text="describe", columns={"layout": {"cells": [1]}}))
