"""What a multimodal language model is asked as a judge, and which of its first tokens say yes or no.

One template for every judge of this kind, over HTTP or in-process, so that their confidences can be compared. Whoever
changes its words raises `TEMPLATE_VERSION`: it is part of a judge's name, and so of the key of cached answers.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

TEMPLATE_VERSION = "2"
INSTRUCTION = (
    "Look closely at the picture and answer one question about it. Judge only what can be seen: where the picture "
    "does not clearly show it, the answer is No. Answer with a single word, Yes or No."
)
TEXT_TEMPLATE_VERSION = "1"
TEXT_INSTRUCTION = (
    "Read the text closely and answer one question about it. Judge only what the text says: where it does not clearly "
    "say it, the answer is No. Answer with a single word, Yes or No."
)
FREE_TEXT_TEMPLATE_VERSION = "1"
SHORT_ANSWER_TEMPLATE_VERSION = "1"
SHORT_ANSWER_INSTRUCTION = (
    "Look closely at the picture and answer one question about it. Judge only what can be seen. Answer with a single "
    "word: Yes, No, or a number in letters (one, two, three)."
)
_AROUND = string.whitespace + string.punctuation + "▁ĠĊčĉ“”«»…。"
"""What may stand around the word in a token: spaces and line ends (also as tokenizers write them), punctuation."""


def template_name(show_request: bool) -> str:
    """The template in a judge's name: with and without the request a judge gives different answers."""
    return f"template-{TEMPLATE_VERSION}{'-request' if show_request else ''}"


def judge_text(question: str, request: str = "") -> str:
    """The words that go with the picture.

    Args:
        question: a yes/no question.
        request: what the picture was made for; it is not mentioned if empty.
    """
    made_for = f"The picture was made for this request: {request.strip()}\n\n" if request.strip() else ""
    return f"{INSTRUCTION}\n\n{made_for}Question: {question.strip()}\nAnswer:"


def judge_messages(question: str, image: Mapping[str, Any], request: str = "") -> list[dict[str, Any]]:
    """The chat of one question: a single user message, as some chat templates know no system role.

    Args:
        question, request: see `judge_text`.
        image: the content part that holds the picture, in the form that the receiver expects: {"type": "image_url",
            "image_url": {"url": ...}} for OpenAI-compatible servers, {"type": "image", "image": ...} for transformers.
    """
    return [{"role": "user", "content": [dict(image), {"type": "text", "text": judge_text(question, request)}]}]


def short_answer_messages(question: str, image: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chat of a question that is answered with yes, no or a number; `image`: see `judge_messages`."""
    text = f"{SHORT_ANSWER_INSTRUCTION}\n\nQuestion: {question.strip()}\nAnswer:"
    return [{"role": "user", "content": [dict(image), {"type": "text", "text": text}]}]


def text_messages(prompt: str, text: str, question: str) -> list[dict[str, Any]]:
    """The chat of one question about a text that was written for a prompt; an empty prompt is not mentioned.

    Questions about texts are about their prompt too ("does it say what the request asks for?"), so it is always named.
    """
    request = f"It was written for this request: {prompt.strip()}\n\n" if prompt.strip() else ""
    asked = f"{TEXT_INSTRUCTION}\n\n{request}Text:\n{text.strip()}\n\nQuestion: {question.strip()}\nAnswer:"
    return [{"role": "user", "content": asked}]


def free_text_messages(text: str, images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The chat of a request that is answered in free text: a single user message, the pictures before the text.

    Args:
        text: all that is said.
        images: content parts that hold the pictures, see `judge_messages`.
    """
    content = [*map(dict, images), {"type": "text", "text": text}] if images else text
    return [{"role": "user", "content": content}]


def is_yes(token: str) -> bool:
    """Whether a token, as text or as it stands in a vocabulary, is a spelling of yes: "Yes", " yes", "▁YES", "yes."."""
    return word_in(token) == "yes"


def is_no(token: str) -> bool:
    """Whether a token is a spelling of no."""
    return word_in(token) == "no"


def answer_ids(vocabulary: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Ids of all tokens that say yes, and of all that say no, sorted.

    Raises:
        ValueError: if either answer has no token of its own: the first token then tells nothing.
    """
    yes = sorted(index for token, index in vocabulary.items() if is_yes(token))
    no = sorted(index for token, index in vocabulary.items() if is_no(token))
    if not yes or not no:
        missing = " and no ".join(word for word, ids in (("yes", yes), ("no", no)) if not ids)
        raise ValueError(
            f"the vocabulary of {len(vocabulary)} tokens has no token for {missing}: the first token of an answer "
            "tells nothing, use a model whose tokenizer knows these words whole"
        )
    return yes, no


def confidence_of(yes_mass: float, no_mass: float, minimum: float = 0.0) -> float | None:
    """P(yes) / (P(yes) + P(no)), in [0, 1]; None = unanswered.

    Args:
        yes_mass, no_mass: probability of all tokens that say yes, and of all that say no.
        minimum: of their sum, for an answer.
    """
    both = yes_mass + no_mass
    return yes_mass / both if both > 0 and both >= minimum else None


def word_in(token: str) -> str:
    """A token without what stands around the word; empty for tokens of nothing else (a line end, `**`)."""
    return token.strip(_AROUND).casefold()
