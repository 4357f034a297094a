"""Answers are read strictly: one choice that is named, or none."""

from __future__ import annotations

from typing import Any

import pytest

from project.data.choices import Choices, choices_of
from project.trajectory import Prompt


def choices(answer: Any, options: Any = None) -> Choices:
    columns = {"answer": answer} | ({} if options is None else {"choices": options})
    return choices_of(Prompt(id="q", text="?", columns=columns, place="q.jsonl:7"))


YES_NO = [
    ("yes", "yes"),
    (" No. ", "no"),
    ("**Yes**", "yes"),
    ("Yes, it is there.", "yes"),
    ("There is no dog.", "no"),
    ("<think> first I thought yes </think> no", "no"),
    ("not at all", None),
    ("I know nothing", None),
    ("yes and no", None),
    ("yes, there is no dog", None),
    ("<think> yes", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "meant"), YES_NO)
def test_yes_and_no(text: str, meant: str | None) -> None:
    asked = choices("yes")
    assert asked.yes_no and asked.listing == ""
    named = asked.named_in(text)
    assert (None if named is None else asked.options[named]) == meant


ANIMALS = ["a cat", "a dog", "a dark dog", "2.5"]
LETTERS = [
    ("B", "B"),
    ("b", "B"),
    ("(C)", "C"),
    ("D.", "D"),
    ("B. a dog", "B"),
    ("The answer is C.", "C"),
    ("a Dog", "B"),
    ("It is a dark dog.", "C"),
    ("A", "A"),
    ("A cat", "A"),
    ("A dog", "B"),
    ("A dog is what I see", "B"),
    ("It weighs 2.5 kilos", "D"),
    ("E", None),
    ("A is right", "A"),
    ("A or B", None),
    ("neither A nor C", None),
    ("B. a cat", None),
    ("a dog or a cat", None),
    ("hotdog", None),
    ("12.5", None),
    ("Because", None),
]


@pytest.mark.parametrize(("text", "letter"), LETTERS)
def test_letters_and_texts(text: str, letter: str | None) -> None:
    asked = choices("B", ANIMALS)
    assert asked.listing == "A. a cat\nB. a dog\nC. a dark dog\nD. 2.5"
    assert asked.named_in(text) == (None if letter is None else "ABCD".index(letter))


def test_a_letter_within_a_text_is_a_part_of_it() -> None:
    asked = choices("C", ["neither", "solution A", "solution B"])
    assert asked.named_in("It is solution B.") == 2 and asked.named_in("B") == 1
    assert asked.named_in("B, solution B") is None


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [("No", None, 1), (True, None, 0), ("b", ["a", "b"], 1), ("C", ["x", "y", "z"], 2), (3, [2, 3], 1)],
)
def test_the_right_answer(answer: Any, options: Any, right: int) -> None:
    assert choices(answer, options).right == right


def test_choices_may_be_yes_and_no() -> None:
    assert choices("A", ["No", "Yes"]).yes_no and not choices("A", ["no", "maybe"]).yes_no


@pytest.mark.parametrize(
    ("answer", "options", "message"),
    [
        (None, None, r"^q.jsonl:7: question 'q': its `answer` is None"),
        ("three", None, "no `choices`: answer yes or no, or give choices"),
        ("E", ["x", "y"], r"'E' is none of its choices, nor their letter \(x, y\)"),
        ("B", ["B", "A"], "the letter of one choice and the text of another"),
        ("x", "x y", "give a list of texts"),
        ("x", ["x"], "give 2 to 26"),
        ("x", ["x", " X."], "empty or the same"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(answer: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choices(answer, options)
