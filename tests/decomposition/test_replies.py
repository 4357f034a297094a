from __future__ import annotations

import json

import pytest

from project.decomposition.replies import read_json, read_objections, read_quality, read_semantic
from project.trajectory import Question

TAGS = ("Existence", "Attribute", "Spatial")


def asked(*entries):
    return json.dumps({"questions": list(entries)})


def entry(number, text="Is it?", tag="Existence", depends_on=(), **others):
    return {"id": number, "question": text, "tag": tag, "depends_on": list(depends_on), **others}


def test_json_is_found_in_what_stands_around_it():
    for reply in (
        '{"a": 1}',
        ' {"a": 1} ',
        '```json\n{"a": 1}\n```',
        'So: {"a": 1}. {"b": 2}',
    ):
        assert read_json(reply) == {"a": 1}
    for reply, message in (
        ("", "there is no JSON object in ''"),
        ("[1, 2]", "there is no JSON object"),
        ('{"a": ', "the JSON is broken"),
        ('{"questions": [{"id": 1, "question": "Is th', "the JSON is broken .*Is th"),
    ):
        with pytest.raises(ValueError, match=message):
            read_json(reply)


def test_semantic_questions_by_hand():
    reply = asked(
        entry("car", "Is there  a car?\n"),
        entry(7, "Is the car red?", "attribute", ["car"]),
        entry(3, "Is it left of the sign?", "Spatial", ["car", 7, 7]),
    )
    assert read_semantic(reply, TAGS) == (
        Question(text="Is there a car?", tag="Existence"),
        Question(text="Is the car red?", tag="Attribute", depends_on=(0,)),
        Question(text="Is it left of the sign?", tag="Spatial", depends_on=(0, 1)),
    )
    # without ids they count from 1, and what nothing depends on needs no list
    bare = json.dumps(
        {
            "questions": [
                {"question": "A?", "tag": "Existence"},
                {"question": "B?", "tag": "Attribute", "depends_on": [1]},
            ]
        }
    )
    assert [q.depends_on for q in read_semantic(bare, TAGS)] == [(), (0,)]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ('{"question": []}', "holds no list of objects named 'questions'"),
        ('{"questions": ["Is it?"]}', "holds no list of objects named 'questions'"),
        ('{"questions": []}', "the list 'questions' is empty"),
        (asked({"id": 1, "tag": "Existence"}), "has no 'question'"),
        (asked(entry(1, " ")), "has no 'question'"),
        (asked(entry(1, tag=None)), "'Is it[?]' has no tag: choose of Existence, Attribute, Spatial"),
        (asked(entry(1, tag="Colour")), "has the unknown tag 'Colour': choose of"),
        (asked(entry(1), entry(1, "B?")), "two questions have the same id"),
        (asked(entry(1), entry(2)), "'Is it[?]' is asked twice"),
        (asked(entry(1, depends_on=[2])), r"'depends_on' is \[2\]: give a list of ids of other questions"),
        (asked(entry(1, depends_on=[1])), r"'depends_on' is \[1\]"),
        (asked({**entry(1), "depends_on": "1"}), "'depends_on' is '1'"),
        (
            asked(entry(1, "A?", depends_on=[2]), entry(2, "B?", depends_on=[1])),
            r"questions \[1, 2\] depend on each other",
        ),
    ],
)
def test_unusable_questions_say_what_is_wrong(reply, message):
    with pytest.raises(ValueError, match=message):
        read_semantic(reply, TAGS)


def test_quality_questions_depend_on_what_they_are_about():
    semantic = [Question(text="A?"), Question(text="B?"), Question(text="C?")]
    reply = asked(
        {"id": 1, "question": "Round?", "tag": "Geometry", "about": [3, 1]}, {"question": "Lit?", "tag": "Lighting"}
    )
    found = read_quality(reply, ("Geometry", "Lighting"), semantic, [1, 3])
    assert found == (
        Question(text="Round?", kind="quality", tag="Geometry", depends_on=(0, 2)),
        Question(text="Lit?", kind="quality", tag="Lighting"),
    )
    with pytest.raises(ValueError, match="'about' is"):
        read_quality(asked({"question": "R?", "tag": "Geometry", "about": [2]}), ("Geometry",), semantic, [1, 3])
    with pytest.raises(ValueError, match="asked twice"):
        read_quality(asked({"question": "a?", "tag": "Geometry"}), ("Geometry",), semantic, [1])


def verdict(number, necessary=True, invented=False, unambiguous=True, **others):
    return {"id": number, "necessary": necessary, "invented": invented, "unambiguous": unambiguous, **others}


def test_objections_by_hand():
    questions = [Question(text="A?"), Question(text="B?"), Question(text="C?")]

    def objections(*verdicts):
        return read_objections(json.dumps({"verdicts": list(verdicts)}), questions)

    assert objections(verdict(3), verdict(1), verdict("2")) == []
    assert objections(
        verdict(1, invented=True, reason=" no car "), verdict(2), verdict(3, False, unambiguous=False)
    ) == [
        "'A?': demands what the prompt does not (no car)",
        "'C?': not strictly necessary, ambiguous",
    ]
    for wrong, message in (
        ((verdict(1), verdict(2)), "verdicts on the ids .*give one on each of 1, 2, 3"),
        ((verdict(1), verdict(2), verdict(3), verdict(3)), "give one on each"),
        ((verdict(1), verdict(2), {"id": 3, "necessary": True}), "the verdict on 3 lacks 'invented', true or false"),
        ((verdict(1), verdict(2), verdict(3, "yes")), "the verdict on 3 lacks 'necessary'"),
    ):
        with pytest.raises(ValueError, match=message):
            objections(*wrong)
