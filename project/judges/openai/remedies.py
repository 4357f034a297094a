"""What is to be done about a server that does not answer as it should, in words for the user."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from project.judges.openai.connection import Connection
from project.judges.openai.environment import proxy_of
from project.judges.openai.failures import Failure
from project.judges.openai.server import Server, Service

TOO_LONG = re.compile(
    r"context.(length|size|window)|n_ctx|max_model_len|maximum model length|exceed_context", re.IGNORECASE
)
NOT_TAKEN = re.compile(r"[Uu]nsupported (?:parameter|value):? ['\"`](\w+)['\"`]")
OTHER_LIMIT = "max_completion_tokens"
"""What some models call max_tokens."""
Remedies = Sequence[tuple[re.Pattern[str], str]]
"""What a server says, and what is to be done about it."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Remedies for the failures of a server.

    Attributes:
        server: its options.
        probe: makes the body of the request that tells whether a server works.
        probe_is: what that request is ("a question about ...").
        remedies: against what servers say of requests of this caller.
    """

    server: Service
    probe: Callable[[], Mapping[str, Any]]
    probe_is: str
    remedies: Remedies = ()

    def remedy(self, connection: Connection, failure: Failure) -> str:
        """What to do about a failure of this connection. It may ask the server for the names of its models."""
        return self._remedy_of(connection, failure) + self.way(connection, failure)

    def way(self, connection: Connection, failure: Failure) -> str:
        """The proxy that may have answered, or not let through, what no API answered."""
        proxy = None if failure.api else proxy_of(connection.address)
        return "" if proxy is None else f". The request went through {proxy}: {proxy.remedy}"

    def _remedy_of(self, connection: Connection, failure: Failure) -> str:
        if failure.kind == "connection":
            return _connection_remedy(failure)
        if failure.kind == "timeout":
            return f"{failure}: wait until it has loaded its model, or raise timeout"
        if failure.status is not None and 300 <= failure.status < 400:
            return f"it sends requests elsewhere ({failure}): give the address that answers as base_url"
        if failure.status == 407:
            return f"a proxy wants a name and a password ({failure}): put them into the proxy's address"
        if failure.kind == "not_served" and failure.status in (402, 429):
            return f"the account has no credit left ({failure}): top it up, or use another key or server"
        if failure.status in (401, 403):
            return self._key_remedy(connection.keyless, failure)
        if failure.status == 404 or (failure.kind == "rejected" and re.search(r"\bmodel\b.*\bnot\b", str(failure))):
            models = connection.models() if isinstance(self.server, Server) else []
            if isinstance(self.server, Server) and models and self.server.model not in models:
                return f"there is no model {self.server.model!r} ({failure}): set model to one of {', '.join(models)}"
            if not models and failure.status == 404:
                return f"no {self.server.answer}s under this address ({failure}): give {self.server.whole_url}"
        if failure.kind == "malformed":
            return f"that is no {self.server.answer} ({failure}): is this {self.server.kind}?"
        if failure.kind == "rate_limit":
            return f"it takes no more requests for now ({failure}): lower concurrency, or wait"
        for said, remedy in self._all_remedies(str(failure)):
            if said.search(str(failure)):
                return f"{remedy}. It says: {failure}"
        if failure.kind == "server_error":
            return f"it fails ({failure}): see the server's log"
        return f"the question is refused ({failure}): see the server's log"

    def _key_remedy(self, keyless: bool, failure: Failure) -> str:
        sent = "it wants a key and none was sent" if keyless else "the key was refused"
        where = self.server.api_key_env or "api_key"
        remedy = (
            "set api_key_env to the name of the environment variable that holds the key"
            if keyless or not self.server.api_key_env
            else f"put a valid key into {where} (api_key_env)"
        )
        return f"{sent} ({failure}): {remedy}"

    def _all_remedies(self, said: str) -> Remedies:
        most = self.probe().get("max_tokens", 1)
        refused = found[1] if (found := NOT_TAKEN.search(said)) else ""
        return (
            (
                re.compile(OTHER_LIMIT),
                f"it wants {OTHER_LIMIT} in place of max_tokens: set extra_body to "
                f"{{max_tokens: null, {OTHER_LIMIT}: {most}}}",
            ),
            (
                TOO_LONG,
                f"its context is too short for {self.probe_is}: lengthen it (vLLM: --max-model-len, llama.cpp: "
                "--ctx-size), or ask about less",
            ),
            *self.remedies,
            (NOT_TAKEN, f"it does not take {refused}: set extra_body to {{{refused}: null}}"),
        )


def _connection_remedy(failure: Failure) -> str:
    said = str(failure)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            f"its certificate is signed by nobody known here ({said}): name the file of its authority in SSL_CERT_FILE"
        )
    if re.search(r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE", said):
        return f"it does not speak https ({said}): write http:// in base_url"
    return f"nothing answers there ({said}): start the server, or correct base_url"
