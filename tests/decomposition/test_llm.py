from __future__ import annotations

import json

import pytest

from project.decomposition.base import ChatModel, Reply
from project.decomposition.llm import LLMDecomposer
from project.decomposition.prompts import DECOMPOSE, PROMPT_VERSION, QUALITY, VALIDATE
from project.trajectory import Question

STAGE = {DECOMPOSE: "decompose", VALIDATE: "validate", QUALITY: "quality"}
CAR = {"id": 1, "question": "Is there a car?", "tag": "Existence"}
RED = {"id": 2, "question": "Is the car red?", "tag": "Attribute", "depends_on": [1]}
LEFT = {"id": 3, "question": "Is the car left of the tree?", "tag": "Spatial", "depends_on": [1]}
ROUND = {"id": 1, "question": "Are the wheels round?", "tag": "Geometry", "about": [1]}


def questions(*entries):
    return json.dumps({"questions": list(entries)})


def verdicts(*good):
    entries = [
        {"id": n, "necessary": True, "invented": not fine, "unambiguous": True, "reason": "" if fine else "why red"}
        for n, fine in enumerate(good, start=1)
    ]
    return json.dumps({"verdicts": entries})


class Scripted(ChatModel):
    """Says what it is told to, stage by stage; remembers the chats."""

    def __init__(self, **replies):
        self.replies = {stage: list(said) for stage, said in replies.items()}
        self.chats = []

    @property
    def name(self):
        return "scripted"

    def preflight(self):
        raise ValueError("switched off")

    def chat(self, messages, attempt=0):
        stage = STAGE[messages[0]["content"]]
        self.chats.append((stage, attempt, [m["content"] for m in messages[1:]]))
        return Reply(text=self.replies[stage].pop(0))

    @property
    def stages(self):
        return [(stage, attempt) for stage, attempt, _ in self.chats]


def test_three_calls_make_a_list_of_questions():
    model = Scripted(
        decompose=[questions(CAR, RED, LEFT)], validate=[verdicts(True, True, True)], quality=[questions(ROUND)]
    )
    assert LLMDecomposer(model).decompose('a "red" car\nleft of a tree') == (
        Question(text="Is there a car?", tag="Existence"),
        Question(text="Is the car red?", tag="Attribute", depends_on=(0,)),
        Question(text="Is the car left of the tree?", tag="Spatial", depends_on=(0,)),
        Question(text="Are the wheels round?", kind="quality", tag="Geometry", depends_on=(0,)),
    )
    assert model.stages == [("decompose", 0), ("validate", 0), ("quality", 0)]
    tasks = [json.loads(texts[0]) for _, _, texts in model.chats]
    assert all(task["prompt"] == 'a "red" car\nleft of a tree' for task in tasks)
    assert [asked["id"] for asked in tasks[1]["questions"]] == [1, 2, 3]
    # relations are no thing that could be drawn well
    assert [asked["id"] for asked in tasks[2]["questions"]] == [1, 2]


def test_an_invalid_question_makes_it_decompose_again_and_names_the_fault():
    model = Scripted(
        decompose=[questions(CAR, RED), questions(CAR)],
        validate=[verdicts(True, False), verdicts(True)],
        quality=[questions(ROUND)],
    )
    assert [q.text for q in LLMDecomposer(model).decompose("a car")] == ["Is there a car?", "Are the wheels round?"]
    assert model.stages == [("decompose", 0), ("validate", 0), ("decompose", 1), ("validate", 0), ("quality", 0)]
    _, reply, complaint = model.chats[2][2]
    assert reply == questions(CAR, RED)
    assert "'Is the car red?': demands what the prompt does not (why red)" in complaint


def test_unreadable_replies_are_asked_for_again_each_in_its_stage():
    model = Scripted(
        decompose=["Sure!", questions(CAR)],
        validate=["{", verdicts(True, True), verdicts(True)],
        quality=["[]", questions(ROUND)],
    )
    assert len(LLMDecomposer(model).decompose("a car")) == 2
    assert model.stages == [
        ("decompose", 0), ("decompose", 1), ("validate", 0), ("validate", 1), ("validate", 2),
        ("quality", 0), ("quality", 1),
    ]  # fmt: skip
    assert "there is no JSON object in 'Sure!'" in model.chats[1][2][-1]


def test_what_stays_wrong_is_refused_with_the_reason():
    model = Scripted(decompose=[questions(RED)] * 6, validate=[verdicts(False)] * 6)
    with pytest.raises(ValueError, match=r"has no|'depends_on'"):
        LLMDecomposer(model).decompose("a car")
    assert model.stages == [("decompose", n) for n in range(6)]
    model = Scripted(decompose=[questions(CAR)] * 3, validate=[verdicts(False)] * 3)
    with pytest.raises(
        ValueError, match=r"no valid questions in 3 attempts, at last because 'Is there a car[?]': demands"
    ):
        LLMDecomposer(model, again=2).decompose("a car")
    model = Scripted(decompose=[questions(CAR)], validate=["no"])
    with pytest.raises(ValueError, match="no readable verdicts in 1 attempts"):
        LLMDecomposer(model, again=0).decompose("a car")
    model = Scripted(decompose=[questions(CAR)], quality=[questions()])
    with pytest.raises(ValueError, match=r"no readable quality questions in 1 attempts.*is empty"):
        LLMDecomposer(model, again=0, validate=False).decompose("a car")


def test_relations_alone_need_no_question_of_quality():
    relation = {**LEFT, "depends_on": []}
    absent = {"id": 4, "question": "Is it free of people?", "tag": "Negative"}
    model = Scripted(decompose=[questions(relation, absent)], validate=[verdicts(True, True)])
    assert [q.kind for q in LLMDecomposer(model).decompose("left, nobody")] == ["semantic"] * 2


def test_stages_can_be_left_out_and_the_name_tells():
    model = Scripted(decompose=[questions(CAR)])
    decomposer = LLMDecomposer(model, validate=False, quality=False)
    assert [q.text for q in decomposer.decompose("a car")] == ["Is there a car?"]
    assert decomposer.name == f"llm:scripted:prompts-{PROMPT_VERSION}-no_validate-no_quality"
    assert LLMDecomposer(model).name == f"llm:scripted:prompts-{PROMPT_VERSION}"
    with pytest.raises(ValueError, match="switched off"):
        decomposer.preflight()
    with pytest.raises(ValueError, match="again=-1"):
        LLMDecomposer(model, again=-1)
