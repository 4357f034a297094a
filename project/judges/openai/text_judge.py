"""`OpenAITextJudge`: a language model behind any OpenAI-compatible server answers questions about texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from project.judges.base import TextJudge
from project.judges.openai.yes_no_model import Chat, YesNoModel
from project.judges.templates import TEXT_TEMPLATE_VERSION, text_messages


class OpenAITextJudge(TextJudge):
    """Asks a model over HTTP, several questions at a time; failures are treated as by `OpenAIJudge`.

    Args:
        base_url: address of a server, up to and including /v1, or several addresses of equal servers.
        model: name that the server knows the model by.
        api_key: key of the server. It is written to the run's config.yaml: prefer `api_key_env`.
        api_key_env: name of the environment variable that holds the key.
        concurrency: questions at work at one server, for each rank of a training.
        timeout: longest wait for one answer [s].
        retries: further attempts at a question after a failure.
        breaker_failures: failures in a row after which a server counts as away.
        probe_seconds: between two attempts to reach a server that is away [s].
        patience: longest wait while every server is away [s].
        text_fallback: where the log-probabilities lack both yes and no, take yes or no of the text as 1 or 0; counted.
        minimum_mass: an answer whose first token says yes or no with less probability than this is no answer.
        top_logprobs: first tokens whose log-probabilities are asked for; OpenAI and vLLM allow 20.
        extra_body: further fields of the request, e.g. {chat_template_kwargs: {enable_thinking: false}}.

    Raises:
        ValueError: for an address that is none, a missing key, or numbers out of range.
    """

    def __init__(
        self,
        base_url: str | list[str],
        model: str,
        api_key: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 32,
        timeout: float = 60.0,
        retries: int = 4,
        breaker_failures: int = 8,
        probe_seconds: float = 5.0,
        patience: float = 1800.0,
        text_fallback: bool = False,
        minimum_mass: float = 0.01,
        top_logprobs: int = 20,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        self.asked = YesNoModel(
            _probe,
            "a question about a short text",
            base_url=base_url,
            model=model,
            api_key=api_key,
            api_key_env=api_key_env,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            breaker_failures=breaker_failures,
            probe_seconds=probe_seconds,
            patience=patience,
            text_fallback=text_fallback,
            minimum_mass=minimum_mass,
            top_logprobs=top_logprobs,
            extra_body=extra_body,
        )

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
        if len(texts) != len(prompts):
            raise ValueError(f"{len(texts)} texts and {len(prompts)} prompts: give one prompt per text")
        keys = [(prompt, text, ask) for text, prompt in zip(texts, prompts, strict=True) for ask in questions]
        distinct = list(dict.fromkeys(keys))
        answers = self.asked.confidences([text_messages(*key) for key in distinct])
        found = dict(zip(distinct, answers, strict=True))
        rest = iter(found[key] for key in keys)
        return [list(islice(rest, len(questions))) for _ in texts]

    def preflight(self) -> None:
        """One question about a short text to every server. Raises ValueError with the remedy."""
        self.asked.preflight()

    def stop_waiting(self) -> None:
        self.asked.stop_waiting()

    def metrics(self) -> dict[str, float]:
        return self.asked.metrics()


def _probe() -> Chat:
    return text_messages("a red square", "The picture shows a red square.", "Does the text name a colour?")
