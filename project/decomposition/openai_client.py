"""A language model behind any OpenAI-compatible server (vLLM, SGLang, llama.cpp, a paid one)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from project.decomposition.base import ChatModel, DecomposerUnavailable
from project.judges.openai.servers import ChatServers, Failure, ServersUnavailable, Stopped, addresses, key_of

PROBE = ({"role": "user", "content": "Answer with the word yes."},)


class OpenAIChat(ChatModel):
    """Chat completions over HTTP, with retries, exponential backoff and a breaker per server.

    Args:
        base_url: address of a server, up to and including /v1, or several addresses of equal servers.
        model: name that the server knows the model by.
        api_key: key of the server; it is visible in the process list, prefer `api_key_env`.
        api_key_env: name of the environment variable that holds the key.
        max_tokens: longest reply, its reasoning included.
        temperature: of attempts after the first, which is greedy.
        concurrency: requests at work at one server.
        timeout: longest wait for a reply [s].
        retries: further attempts at a request after a failure.
        breaker_failures: failures in a row after which a server counts as away.
        probe_seconds: between two attempts to reach a server that is away [s].
        patience: longest wait while every server is away [s].
        extra_body: further fields of the request, e.g. {response_format: {type: json_object}}.

    Raises:
        ValueError: for an address that is none, a missing key, or numbers out of range.
    """

    def __init__(
        self,
        base_url: str | list[str],
        model: str,
        api_key: str | None = None,
        api_key_env: str | None = None,
        max_tokens: int = 4096,
        temperature: float = 0.7,
        concurrency: int = 32,
        timeout: float = 300.0,
        retries: int = 4,
        breaker_failures: int = 8,
        probe_seconds: float = 5.0,
        patience: float = 600.0,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        for name, value in (("max_tokens", max_tokens), ("concurrency", concurrency), ("timeout", timeout)):
            if value <= 0:
                raise ValueError(f"{name}={value}: give a number above 0")
        if temperature < 0 or retries < 0:
            raise ValueError(f"temperature={temperature}, retries={retries}: give 0 or more")
        self.model = model
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.extra_body = dict(extra_body or {})
        self.servers = ChatServers(
            addresses(base_url),
            api_key=key_of(api_key, api_key_env),
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            breaker_failures=breaker_failures,
            probe_seconds=probe_seconds,
            patience=patience,
            probe=lambda: self._body(PROBE, 0) | {"max_tokens": 1},
            who="language model",
        )
        self._stop = threading.Event()

    @property
    def name(self) -> str:
        return f"openai:{self.model}"

    def chat(self, messages: Sequence[Mapping[str, str]], attempt: int = 0) -> str:
        try:
            reply = self.servers.ask(self._body(messages, attempt), _content, self._stop)
        except ServersUnavailable as error:
            raise DecomposerUnavailable(str(error), for_good=True) from error
        except Stopped as error:
            raise DecomposerUnavailable("given up", for_good=True) from error
        if isinstance(reply, str):
            return reply
        if reply.kind == "rejected":
            raise ValueError(f"the server does not take the request: {reply}") from reply
        raise DecomposerUnavailable(f"{reply.kind}: {reply}") from reply

    def preflight(self) -> None:
        """A short chat with every server. Raises ValueError with the remedy."""
        for url in self.servers.urls:
            try:
                self.servers.once(url, self._body(PROBE, 0), _content)
            except Failure as failure:
                raise ValueError(f"language model at {url}: {self._remedy(url, failure)}") from failure

    def close(self) -> None:
        self._stop.set()

    def _body(self, messages: Sequence[Mapping[str, str]], attempt: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature if attempt else 0.0,
            "seed": attempt,
            **self.extra_body,
        }

    def _remedy(self, url: str, failure: Failure) -> str:
        if failure.kind == "connection":
            return f"nothing answers there ({failure}): start the server, or correct base_url"
        if failure.kind == "timeout":
            return f"{failure}: wait until it has loaded its model, or raise timeout"
        if failure.status in (401, 403):
            return f"it refuses the key ({failure}): set api_key_env to the name of the variable that holds it"
        models = self.servers.models(url)
        if failure.status == 404 and models and self.model not in models:
            return f"there is no model {self.model!r} ({failure}): set model to one of {', '.join(models)}"
        if failure.status == 404:
            return f"there is no chat there ({failure}): base_url ends with /v1 at most servers"
        return f"{failure.kind}: {failure}"


def _content(completion: Any) -> str:
    """The reply in a chat completion. Raises Failure if there is none."""
    try:
        content = completion["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise Failure("malformed", f"no chat completion: {str(completion)[:80]!r}") from error
    # A reply that is reasoning alone, or empty, is for whoever reads it to complain about.
    return str(content or "")
