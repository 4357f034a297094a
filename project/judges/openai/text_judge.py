"""`OpenAITextJudge`: a language model behind any OpenAI-compatible server answers questions about texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from project.judges.base import BehindJudge, TextJudge, check_texts
from project.judges.openai.server import Server
from project.judges.openai.yes_no_model import Chat, YesNoModel
from project.judges.templates import TEXT_TEMPLATE_VERSION, text_messages


class OpenAITextJudge(BehindJudge, TextJudge):
    """Asks a model over HTTP, several questions at a time; failures are treated as by `OpenAIJudge`.

    Args:
        server: who is asked.
        text_fallback, minimum_mass, top_logprobs: see `OpenAIJudge`.

    Raises:
        ValueError: for a missing key, or numbers out of range.
    """

    def __init__(
        self, server: Server, text_fallback: bool = False, minimum_mass: float = 0.01, top_logprobs: int = 20
    ) -> None:
        self.asked = YesNoModel(
            server,
            _probe,
            "a question about a short text",
            text_fallback=text_fallback,
            minimum_mass=minimum_mass,
            top_logprobs=top_logprobs,
        )

    @property
    def behind(self) -> YesNoModel:
        return self.asked

    @property
    def name(self) -> str:
        return self.asked.name(f"text-template-{TEXT_TEMPLATE_VERSION}")

    def answer_texts(
        self, texts: Sequence[str], questions: Sequence[str], prompts: Sequence[str]
    ) -> list[list[float | None]]:
        """See `TextJudge.answer_texts`. Equal questions about equal texts are asked once.

        Raises:
            ValueError: if there are not as many prompts as texts.
            JudgeUnavailable: if no server answers for `patience` seconds, or every one of at least
                `breaker_failures` questions failed.
        """
        check_texts(texts, prompts)
        keys = [(prompt, text, ask) for text, prompt in zip(texts, prompts, strict=True) for ask in questions]
        distinct = list(dict.fromkeys(keys))
        answers = self.asked.confidences([text_messages(*key) for key in distinct])
        found = dict(zip(distinct, answers, strict=True))
        rest = iter(found[key] for key in keys)
        return [list(islice(rest, len(questions))) for _ in texts]


def _probe() -> Chat:
    return text_messages("a red square", "The picture shows a red square.", "Does the text name a colour?")
