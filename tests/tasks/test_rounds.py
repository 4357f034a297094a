"""The one rule of refinement rounds, by hand."""

from __future__ import annotations

import math

import pytest

from project.tasks.rounds import RoundRule, check_wording, instruction


@pytest.mark.parametrize(
    ("score", "refined"), [(0.4, True), (0.5, False), (0.6, False), (None, False), (math.nan, False)]
)
def test_what_is_below_the_gate_is_refined(score, refined):
    assert RoundRule(below=0.5).refines(score) == refined
    assert RoundRule().refines(score), "without a gate all are"


def test_what_a_reflection_finds():
    assert RoundRule().finds_nothing("Well. Nothing is wrong.") and not RoundRule().finds_nothing("the circle is blue")
    assert RoundRule(right="Fine").finds_nothing("all is fine") and not RoundRule(right="fine").finds_nothing(None)
    assert not RoundRule(right=None).finds_nothing("nothing is wrong"), "every round is drawn"


def test_the_prompt_is_put_in_as_it_is():
    assert instruction("draw {prompt}, {now}", "a {b}") == "draw a {b}, {now}"


def test_a_wording_names_the_prompt():
    check_wording(None), check_wording("look again: {prompt}")
    for wording in ("look again", "", "{prompts}"):
        with pytest.raises(ValueError, match=r"write \{prompt\} where the prompt is to stand"):
            check_wording(wording)
