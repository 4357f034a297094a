"""`OpenAIShortAnswerJudge`: how probable a model behind any OpenAI-compatible server finds a short answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np

from project.core.digest import image_digest
from project.judges.base import BehindJudge
from project.judges.openai.pictures import data_uri
from project.judges.openai.server import Server
from project.judges.openai.yes_no_model import UNCERTAIN, Chat, YesNoModel
from project.judges.short_answers import ShortAnswer, ShortAnswerJudge, check_lists
from project.judges.templates import SHORT_ANSWER_TEMPLATE_VERSION, short_answer_messages, word_in


class OpenAIShortAnswerJudge(BehindJudge, ShortAnswerJudge):
    """Asks a model over HTTP for one token and its log-probabilities; failures are treated as by `OpenAIJudge`.

    A question is sent once, whatever answers to it are wanted. The probability of an answer is that of all first tokens
    that spell it. A model whose tokenizer does not know the words of an answer whole cannot be asked in this way: the
    probability is unknown (None).

    Args:
        server: who is asked.
        top_logprobs: first tokens whose log-probabilities are asked for; OpenAI and vLLM allow 20.
        image_size: height and width of the picture that `preflight` asks about [pixels]: that of your pictures.

    Raises:
        ValueError: for a missing key, or numbers out of range.
    """

    def __init__(self, server: Server, top_logprobs: int = 20, image_size: int = 512) -> None:
        if image_size < 1:
            raise ValueError(f"image_size={image_size}: give 1 or more")
        self.image_size = image_size
        self.asked = YesNoModel(
            server,
            self._probe,
            f"a question about a picture of {image_size} x {image_size} pixels (image_size)",
            text_fallback=None,
            minimum_mass=0.01,
            top_logprobs=top_logprobs,
        )

    @property
    def behind(self) -> YesNoModel:
        return self.asked

    @property
    def name(self) -> str:
        return self.asked.name(f"short-answer-{SHORT_ANSWER_TEMPLATE_VERSION}")

    def probabilities(
        self, images: Sequence[np.ndarray], answers: Sequence[Sequence[ShortAnswer]]
    ) -> list[list[float | None]]:
        """See `ShortAnswerJudge.probabilities`. Equal questions about equal pictures are asked once.

        Raises:
            ValueError: if there is not one list per image, or an image is no uint8 [height, width, 3].
            JudgeUnavailable: if no server answers for `patience` seconds, or every one of at least
                `breaker_failures` questions failed.
        """
        check_lists(images, answers)
        pictures = [image_digest(image) for image in images]
        uris = {digest: data_uri(image) for digest, image in zip(pictures, images, strict=True)}
        keys = [(picture, one.question) for picture, row in zip(pictures, answers, strict=True) for one in row]
        distinct = list(dict.fromkeys(keys))
        replies = self.asked.replies([_chat(uris[picture], question) for picture, question in distinct])
        found = dict(zip(distinct, replies, strict=True))
        wanted = (one for row in answers for one in row)
        values = (
            None if (reply := found[key]) is None else answer_probability(reply.alternatives, one.spellings)
            for key, one in zip(keys, wanted, strict=True)
        )
        return [list(islice(values, len(row))) for row in answers]

    def _probe(self) -> Chat:
        red = np.zeros((self.image_size, self.image_size, 3), dtype=np.uint8)
        red[..., 0] = 255
        return _chat(data_uri(red), "Is the whole picture red?")


def answer_probability(alternatives: Sequence[tuple[str, float]], spellings: Sequence[str]) -> float | None:
    """Probability of all listed first tokens that spell an answer; None if there is too little to tell.

    What is not listed counts as 0, and so does a token that is only the beginning of a spelling ("tw"), unless that
    could make a difference of more than `UNCERTAIN`: then the probability is unknown.

    Args:
        alternatives: tokens and their log-probabilities [nats], in any order; a text may occur several times.
        spellings: ways to write the answer; upper and lower case are the same.
    """
    words = {spelling.casefold() for spelling in spellings}
    listed = [(word_in(token), math.exp(min(p, 0.0))) for token, p in alternatives if not math.isnan(p)]
    if not listed:
        return None
    known = sum(mass for word, mass in listed if word in words)
    begun = sum(mass for word, mass in listed if word and word not in words and any(w.startswith(word) for w in words))
    # An unlisted token is no more probable than the least probable one that is listed.
    rest = max(0.0, 1.0 - sum(mass for _, mass in listed))
    unlisted = min(rest, len(words) * min(mass for _, mass in listed))
    return min(known, 1.0) if begun + unlisted <= UNCERTAIN else None


def _chat(uri: str, question: str) -> Chat:
    return short_answer_messages(question, {"type": "image_url", "image_url": {"url": uri}})
