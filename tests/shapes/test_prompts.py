from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from project.data.prompts import read_prompts
from project.shapes.decomposer import ShapesDecomposer
from project.shapes.editing import EDIT_KINDS, apply, edit_of, questions
from project.shapes.grammar import parse
from project.shapes.prompts import EDIT_SETS, EVAL_SETS, write_prompts
from project.shapes.scenes import KINDS, Scene
from project.shapes.split import UNSEEN_COLOUR_DESCRIPTORS, UNSEEN_SHAPE_DESCRIPTORS, pair_split, scene_split

DATA = Path(__file__).parents[2] / "data" / "shapes"


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def test_the_files_are_what_the_generator_writes(tmp_path):
    write_prompts(tmp_path)
    there = {file.name for file in DATA.glob("*.jsonl")} - {"understanding.jsonl"}  # project/shapes/understanding.py
    assert {file.name for file in tmp_path.iterdir()} == there
    for name in ("train.jsonl", "eval.jsonl", "edit_train.jsonl", "edit.jsonl"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_another_seed_draws_other_prompts_with_ids_of_their_own(tmp_path):
    write_prompts(tmp_path, seed=3)
    for name in ("train.jsonl", "eval.jsonl", "edit_train.jsonl", "edit.jsonl"):
        fresh = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        known = rows(name)
        assert [row["id"] for row in fresh] == [f"fresh3-{row['id']}" for row in known]
        assert [(row["set"], row["kind"]) for row in fresh] == [(row["set"], row["kind"]) for row in known]
        assert {row["prompt"] for row in fresh} - {row["prompt"] for row in known}, name


@pytest.mark.parametrize("name", ["train.jsonl", "eval.jsonl"])
def test_rows_say_what_their_prompt_says(name: str):
    found = rows(name)
    assert len({row["id"] for row in found}) == len(found)
    for row in found:
        scene = Scene.from_dict(row["scene"])
        assert parse(row["prompt"], indirect=True) == scene
        assert (parse(row["prompt"]) is None) == row["indirect"]
        assert scene.kind == row["kind"] and scene_split(scene) == row["split"]


def test_a_read_prompt_has_the_questions_of_its_decomposition():
    for prompt in read_prompts(DATA / "eval.jsonl")[::37]:
        assert prompt.questions == ShapesDecomposer().decompose(prompt.text)


def test_evaluation_weighs_kinds_evenly():
    counts = Counter((row["set"], row["kind"]) for row in rows("eval.jsonl"))
    assert counts == {(name, kind): 104 for name in EVAL_SETS for kind in KINDS}


def test_training_practises_what_evaluation_holds_out_not():
    train, evaluation = rows("train.jsonl"), rows("eval.jsonl")
    texts = {row["prompt"] for row in train}
    assert not texts & {row["prompt"] for row in evaluation if row["set"].endswith("heldout")}
    assert {row["split"] for row in train} == {"seen", "practised"}
    assert set(Counter(row["kind"] for row in train).values()) == {400}


@pytest.mark.parametrize("name", ["edit_train.jsonl", "edit.jsonl"])
def test_instructions_are_edits_of_their_pictures(name: str):
    prompts = read_prompts(DATA / name)
    for prompt in prompts:
        edit = edit_of(prompt)
        assert edit.kind == prompt.columns["kind"] and prompt.questions == questions(edit)
        pairs = [
            (thing.colour, thing.shape)
            for _, thing in (*edit.source.things, *apply(edit.change, edit.source)[0].things)
        ]
        assert {"seen", prompt.columns["split"]} >= {pair_split(*pair) for pair in pairs}
    kinds = Counter((prompt.columns["set"], prompt.columns["kind"]) for prompt in prompts)
    if name == "edit.jsonl":
        assert kinds == {(name, kind): rows for name, (_, rows) in EDIT_SETS.items() for kind in EDIT_KINDS}
        assert {kind: sum(rows for _, rows in EDIT_SETS.values()) for kind in EDIT_KINDS} == dict.fromkeys(
            EDIT_KINDS, 130
        )
    else:
        assert kinds == {("edit", kind): 100 for kind in EDIT_KINDS}
        assert Counter(prompt.columns["split"] for prompt in prompts) == {"seen": 200, "practised": 200}


def test_three_of_five_practised_descriptors_are_unseen():
    unseen = UNSEEN_COLOUR_DESCRIPTORS | UNSEEN_SHAPE_DESCRIPTORS
    words = [word for row in rows("train.jsonl") if row["indirect"] for word in row["prompt"].split()]
    descriptors = sum(word in ("coloured", "shape", "shapes") for word in words)
    assert sum(word in unseen for word in words) / descriptors == pytest.approx(0.6, abs=0.03)
