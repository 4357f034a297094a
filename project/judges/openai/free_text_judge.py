"""`OpenAIFreeTextJudge`: a model behind any OpenAI-compatible server (vLLM, SGLang, llama.cpp) writes answers."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from project.core.metrics import Metric, Sum
from project.judges.free_text import FreeText, FreeTextJudge, FreeTextRequest
from project.judges.openai.answers import answers_of
from project.judges.openai.pictures import data_uri
from project.judges.openai.replies import message_of
from project.judges.openai.server import Server
from project.judges.openai.servers import Servers
from project.judges.openai.yes_no_model import NO_PICTURES, NO_REASONING
from project.judges.templates import FREE_TEXT_TEMPLATE_VERSION, free_text_messages

TIMEOUT = 120.0
"""Longest wait for an answer, if the server's options do not say [s]."""
MAX_TOKENS = 1024
"""Longest answer, if the server's options do not say."""
TOO_MANY_PICTURES = re.compile(r"at most [1-9]\d* image", re.IGNORECASE)


class OpenAIFreeTextJudge(FreeTextJudge):
    """Asks a model over HTTP, several requests at a time; failures are treated as by `OpenAIJudge`.

    The model needs no log-probabilities. An answer has at most `server.max_tokens` tokens, 1024 by default, reasoning
    included.

    Args:
        server: who is asked.
        retry_temperature: of attempts after the first, which is greedy. A low one: the answer should differ in its
            form and not in its judgement.
        num_pictures: pictures of the request that `preflight` sends: the most that yours have; 0 for a model that
            reads texts alone.
        image_size: height and width of those pictures [pixels]: that of yours.

    Raises:
        ValueError: for a missing key, or numbers out of range.
    """

    def __init__(
        self, server: Server, retry_temperature: float = 0.3, num_pictures: int = 2, image_size: int = 512
    ) -> None:
        if not retry_temperature > 0:
            raise ValueError(f"retry_temperature={retry_temperature}: give a number above 0, or equal texts are drawn")
        if num_pictures < 0 or image_size < 1:
            raise ValueError(f"{num_pictures=}, {image_size=}: give at least 0, and at least 1")
        self.server = server
        self.retry_temperature = retry_temperature
        self.num_pictures = num_pictures
        self.image_size = image_size
        self.max_tokens = server.max_tokens or MAX_TOKENS
        self.servers = Servers(
            server,
            timeout=TIMEOUT,
            probe=self._probe,
            probe_is=f"{num_pictures} pictures of {image_size} x {image_size} pixels (num_pictures, image_size) and an "
            f"answer of up to {self.max_tokens} tokens (max_tokens)",
            remedies=(
                (
                    TOO_MANY_PICTURES,
                    f"it does not take {num_pictures} pictures at once: raise the server's bound (vLLM: "
                    f"--limit-mm-per-prompt '{{\"image\": {num_pictures}}}'), or set num_pictures to the most that "
                    "yours have",
                ),
                (
                    NO_PICTURES,
                    f"model {server.model!r} does not take pictures: serve a vision-language model, or set "
                    "num_pictures to 0 to ask about texts alone",
                ),
            ),
        )
        self._lock = threading.Lock()
        self._cut_off = 0

    @property
    def name(self) -> str:
        """Model, template and whatever else changes an answer; not the address."""
        return self.server.identity(
            f"free-text-{FREE_TEXT_TEMPLATE_VERSION}",
            max_tokens=self.max_tokens,
            retry_temperature=self.retry_temperature,
        )

    def write(self, requests: Sequence[FreeTextRequest]) -> list[FreeText | None]:
        """See `FreeTextJudge.write`. Equal requests are sent once.

        Raises:
            ValueError: if a picture is no uint8 [height, width, 3].
            JudgeUnavailable: if no server answers for `patience` seconds, or every one of at least
                `breaker_failures` requests failed.
        """
        keys = [request.key for request in requests]
        distinct = dict(zip(keys, requests, strict=True))
        answers = answers_of(self.servers, [self._body(request) for request in distinct.values()], _read)
        with self._lock:
            self._cut_off += sum(answer is not None and answer.cut_off for answer in answers)
        found = dict(zip(distinct, answers, strict=True))
        return [found[key] for key in keys]

    def preflight(self) -> None:
        """A request with `num_pictures` pictures to every server. Raises ValueError with the remedy."""
        for address, answer in self.servers.preflight(_read):
            judge = f"judge at {address.shown}: model {self.server.model!r}"
            if answer.cut_off:
                raise ValueError(
                    f"{judge} comes to no end within {self.max_tokens} tokens: {NO_REASONING}, or raise max_tokens"
                )
            if not answer.text:
                raise ValueError(f"{judge} answers with an empty text: {NO_REASONING}, or use another model")

    @property
    def longest_wait(self) -> float:
        return self.servers.longest_wait

    def stop_waiting(self) -> None:
        self.servers.stop_waiting()

    def metrics(self) -> dict[str, Metric]:
        """See `Judge.metrics`; `judge/cut_off` counts answers that reached the longest length."""
        with self._lock:
            cut_off, self._cut_off = self._cut_off, 0
        counts = {**self.servers.metrics(), "cut_off": float(cut_off)}
        return {f"judge/{name}": Sum(value=value) for name, value in counts.items()}

    def _body(self, request: FreeTextRequest) -> dict[str, Any]:
        pictures = [{"type": "image_url", "image_url": {"url": data_uri(picture)}} for picture in request.pictures]
        return self.server.body(
            free_text_messages(request.text, pictures),
            max_tokens=MAX_TOKENS,
            temperature=self.retry_temperature if request.attempt else 0.0,
            seed=request.attempt,
        )

    def _probe(self) -> dict[str, Any]:
        grey = np.full((self.image_size, self.image_size, 3), 128, dtype=np.uint8)
        return self._body(
            FreeTextRequest(text="Write the word yes and nothing else.", pictures=(grey,) * self.num_pictures)
        )


def _read(completion: Any) -> FreeText:
    """The answer in a chat completion. Raises Failure if there is none."""
    message = message_of(completion)
    answer = message.answer
    return FreeText(text=(answer or "").strip(), cut_off=message.cut_off or answer is None)
