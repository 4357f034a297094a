from __future__ import annotations

import pytest

from project.shapes.decomposer import ShapesDecomposer
from project.shapes.grammar import vocabulary


def decompose(prompt: str) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(q.text, q.tag, q.depends_on) for q in ShapesDecomposer().decompose(prompt)]


def test_a_relation_by_hand():
    assert decompose("a red circle left of a blue square") == [
        ("is there a circle ?", "Existence", ()),
        ("is the circle red ?", "Attribute", (0,)),
        ("is there a square ?", "Existence", ()),
        ("is the square blue ?", "Attribute", (2,)),
        ("is the circle left of the square ?", "Spatial", (0, 2)),
        ("are there two shapes ?", "Count", ()),
        ("are the shapes clean ?", "Geometry", ()),
        ("is the background plain ?", "Coherence", ()),
    ]


def test_counts_and_sizes_by_hand():
    assert decompose("three small green crosses")[:-2] == [
        ("is there a cross ?", "Existence", ()),
        ("are the crosses green ?", "Attribute", (0,)),
        ("are the crosses small ?", "Attribute", (0,)),
        ("are there three crosses ?", "Count", (0,)),
        ("are there three shapes ?", "Count", ()),
    ]


def test_an_indirect_prompt_asks_what_its_direct_one_asks():
    assert decompose("a blood coloured coin shape") == decompose("a red circle")


def test_semantic_questions_come_first_in_known_words():
    questions = ShapesDecomposer().decompose("a red circle and a blue square")
    assert [q.kind for q in questions] == ["semantic"] * 5 + ["quality"] * 2
    assert {word for q in questions for word in q.text.split()} <= set(vocabulary())


def test_a_foreign_prompt_is_refused():
    with pytest.raises(ValueError, match="'a cat' is no prompt of the embedded world"):
        ShapesDecomposer().decompose("a cat")
