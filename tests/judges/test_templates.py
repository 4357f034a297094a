"""The judge's template, and the spellings of yes and no."""

from __future__ import annotations

import pytest

from project.judges.templates import (
    TEMPLATE_VERSION,
    answer_ids,
    confidence_of,
    is_no,
    is_yes,
    judge_messages,
    judge_text,
    template_name,
)

YES = ["yes", "Yes", "YES", " yes", " Yes", "▁yes", "▁YES", "Ġyes", "ĠYes", "Yes.", " yes,", '"Yes', "**Yes", "Ċyes"]
NEITHER = ["", " ", "▁", "Ġ", "y", "Y", "yesterday", "eyes", "non", "not", "know", "Nope", "▁nothing", "N", "是", "."]


@pytest.mark.parametrize("token", YES)
def test_spellings_of_yes_and_no(token: str) -> None:
    assert is_yes(token) and not is_no(token)
    spelled = {"yes": "no", "Yes": "No", "YES": "NO"}
    denied = next(token.replace(yes, no) for yes, no in spelled.items() if yes in token)
    assert is_no(denied) and not is_yes(denied)


@pytest.mark.parametrize("token", NEITHER)
def test_other_tokens_say_neither(token: str) -> None:
    assert not is_yes(token) and not is_no(token)


def test_ids_of_all_spellings() -> None:
    vocabulary = {"Ġno": 7, "Yes": 3, "a": 0, "Ġyes": 1, "NO": 2, "eyes": 5}
    assert answer_ids(vocabulary) == ([1, 3], [2, 7])
    with pytest.raises(ValueError, match="3 tokens has no token for no:"):
        answer_ids({"Yes": 0, "n": 1, "o": 2})
    with pytest.raises(ValueError, match="no token for yes and no no:"):
        answer_ids({"a": 0})


def test_confidence_is_a_share_of_both_masses() -> None:
    assert confidence_of(0.3, 0.1) == pytest.approx(0.75)
    assert confidence_of(0.2, 0.0) == 1.0 and confidence_of(0.0, 0.2) == 0.0
    assert confidence_of(0.0, 0.0) is None, "neither token: unanswered, not a number"
    assert confidence_of(0.003, 0.001, minimum=0.01) is None
    assert confidence_of(0.03, 0.01, minimum=0.01) == pytest.approx(0.75)


def test_the_template_names_question_and_one_word_and_the_request_if_told() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    (message,) = judge_messages("is the circle red ?", image)
    assert message["role"] == "user" and message["content"][0] == image
    text = message["content"][1]["text"]
    assert "Question: is the circle red ?" in text and "Yes or No" in text and "request" not in text
    assert text == judge_text("is the circle red ?") == judge_text("is the circle red ?", " ")
    (told,) = judge_messages("is the circle red ?", image, "a red circle")
    before, _, behind = told["content"][1]["text"].partition("The picture was made for this request: a red circle\n\n")
    assert before + behind == text, "the request is all that is added"


def test_names_tell_the_templates_apart() -> None:
    assert template_name(False) == f"template-{TEMPLATE_VERSION}" != template_name(True)
    assert TEMPLATE_VERSION not in ("", "1"), "answers of the first template, which named the request, are not reused"
