"""A language model behind any OpenAI-compatible server (vLLM, SGLang, llama.cpp, a paid one)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from project.decomposition.base import ChatModel, DecomposerUnavailable, Reply
from project.judges.openai.replies import message_of
from project.judges.openai.server import Server
from project.judges.openai.servers import Servers, ServersUnavailable, Stopped

PROBE = ({"role": "user", "content": "Answer with the word yes."},)
TIMEOUT = 300.0
"""Longest wait for a reply, if the server's options do not say [s]."""
MAX_TOKENS = 4096
"""Longest reply, if the server's options do not say."""


class OpenAIChat(ChatModel):
    """Chat completions over HTTP, with retries, exponential backoff and a breaker per server.

    Args:
        server: who is asked.
        temperature: of attempts after the first, which is greedy.

    Raises:
        ValueError: for a missing key, or a temperature below 0.
    """

    def __init__(self, server: Server, temperature: float = 0.7) -> None:
        if temperature < 0:
            raise ValueError(f"temperature={temperature}: give 0 or more")
        self.server = server
        self.temperature = temperature
        self.servers = Servers(
            server,
            timeout=TIMEOUT,
            probe=lambda: self._body(PROBE, 0),
            probe_is=f"replies of up to {server.max_tokens or MAX_TOKENS} tokens (max_tokens)",
            who="language model",
        )
        self._stop = threading.Event()

    @property
    def name(self) -> str:
        return f"openai:{self.server.model}"

    def chat(self, messages: Sequence[Mapping[str, str]], attempt: int = 0) -> Reply:
        try:
            reply = self.servers.ask(self._body(messages, attempt), _reply, self._stop)
        except ServersUnavailable as error:
            raise DecomposerUnavailable(str(error), for_good=True) from error
        except Stopped as error:
            raise DecomposerUnavailable("given up", for_good=True) from error
        if isinstance(reply, Reply):
            return reply
        if reply.kind == "rejected":
            raise ValueError(f"the server does not take the request: {reply}") from reply
        raise DecomposerUnavailable(f"{reply.kind}: {reply}") from reply

    def preflight(self) -> None:
        """A short chat with every server. Raises ValueError with the remedy."""
        self.servers.preflight(_reply)

    def close(self) -> None:
        self._stop.set()

    def _body(self, messages: Sequence[Mapping[str, str]], attempt: int) -> dict[str, Any]:
        return self.server.body(
            messages,
            max_tokens=MAX_TOKENS,
            temperature=self.temperature if attempt else 0.0,
            seed=attempt,
        )


def _reply(completion: Any) -> Reply:
    """The reply in a chat completion. Raises Failure if there is none."""
    message = message_of(completion)
    # A reply that is reasoning alone, or empty, is for whoever reads it to complain about.
    return Reply(text=message.text, cut_off=message.cut_off)
