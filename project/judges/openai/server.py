"""`Server`: the options of an OpenAI-compatible server, the same for every client of one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

EXAMPLE = "http://localhost:8000/v1"
QUOTES = "\"'`"


@dataclass(frozen=True, slots=True)
class Address:
    """Where one server is."""

    chat: str
    """URL of chat completions."""
    models: str
    """URL of the list of models."""
    shown: str
    """For messages: up to and including /v1, without user, password and query, which may hold a key."""
    scheme: str
    host: str
    place: str
    """Host and port."""
    user: tuple[str, str] | None = field(default=None, repr=False)
    """Name and password, for servers behind basic authentication."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Parts of the address that no message may hold."""


@dataclass(frozen=True, slots=True)
class Server:
    """An OpenAI-compatible server (vLLM, SGLang, llama.cpp, a paid one), or several equal ones.

    Args:
        base_url: address of a server, up to and including /v1, or several addresses of equal servers.
        model: name that the server knows the model by.
        api_key: key of the server. It is written to the run's config.yaml: prefer `api_key_env`.
        api_key_env: name of the environment variable that holds the key.
        max_tokens: longest reply, its reasoning included; if None, 1 for a judge that says yes or no, 1024 for one that
            writes, and 4096 for a decomposer.
        timeout: longest wait for one reply [s]; if None, 60 for a judge that says yes or no, 120 for one that writes,
            and 300 for a decomposer.
        concurrency: requests at work at one server, for each rank of a training.
        retries: further attempts at a request after a failure.
        breaker_failures: failures in a row after which a server counts as away.
        probe_seconds: between two attempts to reach a server that is away [s].
        patience: longest wait while every server is away, or for what a server asks to wait [s].
        extra_body: further fields of the request, e.g. {chat_template_kwargs: {enable_thinking: false}}. They replace
            the client's own fields; a field that is null is left out.

    Raises:
        ValueError: for an address that is none, a key that cannot be sent, or numbers out of range.
    """

    base_url: str | list[str]
    model: str
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    concurrency: int = 32
    retries: int = 4
    breaker_failures: int = 8
    probe_seconds: float = 5.0
    patience: float = 1800.0
    extra_body: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("concurrency", 1), ("retries", 0), ("breaker_failures", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value}: give {least} or more")
        for name in ("timeout", "probe_seconds", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: give a number of seconds above 0")
        if self.api_key and self.api_key_env:
            raise ValueError("api_key and api_key_env are both given: give one")
        if self.api_key is not None:
            checked_key(self.api_key, "api_key")
        self.addresses()

    def addresses(self) -> list[Address]:
        """One per server. Raises ValueError for what is no address."""
        given = [self.base_url] if isinstance(self.base_url, str) else list(self.base_url)
        if not given:
            raise ValueError(f"base_url is empty: give the address of a server, e.g. {EXAMPLE}")
        return [address_of(one) for one in given]

    def key(self) -> str | None:
        """The key, given or from the environment. Raises ValueError if the variable holds none that can be sent."""
        if self.api_key_env is None:
            return None if self.api_key is None else checked_key(self.api_key, "api_key")
        if self.api_key_env not in os.environ:
            raise ValueError(
                f"api_key_env: the environment variable {self.api_key_env} is not set: export {self.api_key_env}=..."
            )
        return checked_key(os.environ[self.api_key_env], f"the environment variable {self.api_key_env}")

    def identity(self, template: str, **options: Any) -> str:
        """A judge's name: model, template and whatever else changes an answer; not the address.

        Args:
            template: name and version of what is asked.
            options: of the judge, by name; this server's `max_tokens` and `extra_body` replace them.
        """
        options |= {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        options |= self.extra_body or {}
        digest = hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=4).hexdigest()
        return f"openai:{self.model}:{template}:{digest}"

    def body(self, messages: Sequence[Mapping[str, Any]], *, max_tokens: int, **fields: Any) -> dict[str, Any]:
        """A chat completion request. `max_tokens` counts where this server has none of its own."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": self.max_tokens or max_tokens,
            **fields,
            **(self.extra_body or {}),
        }
        return {name: value for name, value in body.items() if value is not None}


def checked_key(key: str, where: str) -> str:
    """The key without white space around it. Raises ValueError, without the key, if a header cannot hold it."""
    key = key.strip()
    remedy = f"set {where} to the key alone"
    if not key:
        raise ValueError(f"{where} is empty: {remedy}")
    if any(character in QUOTES for character in key):
        raise ValueError(f"{where} holds quotation marks, which no key has: {remedy}, without quotation marks")
    if any(character.isspace() for character in key):
        raise ValueError(f"{where} holds a blank or a line end inside the key: {remedy}, on one line")
    if any(not "!" <= character <= "~" for character in key):
        raise ValueError(
            f"{where} holds a character that no key has (such as a typographic quotation mark or an accent): "
            f"{remedy}, typed anew"
        )
    return key


def address_of(base_url: str) -> Address:
    """A `base_url` in its parts; a query (`?api-version=...`) stays behind the path. Raises ValueError."""
    url = base_url.strip()
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        parts, port, host = urlsplit(""), None, ""
    if parts.scheme not in ("http", "https") or not host or any(not character >= "!" for character in url):
        raise ValueError(f"base_url={without_secrets(base_url)!r} is no address: give one such as {EXAMPLE}")
    path = parts.path.rstrip("/")
    place = f"[{host}]" if ":" in host else host
    place = place if port is None else f"{place}:{port}"
    shown = urlunsplit((parts.scheme, place, path, "", ""))
    if path.endswith("/chat/completions"):
        raise ValueError(f"base_url={shown!r}: give it without /chat/completions, up to and including /v1")
    user = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
    query = [value for pair in parts.query.split("&") if (value := pair.partition("=")[2])]
    return Address(
        chat=urlunsplit((parts.scheme, place, f"{path}/chat/completions", parts.query, "")),
        models=urlunsplit((parts.scheme, place, f"{path}/models", parts.query, "")),
        shown=shown,
        scheme=parts.scheme,
        host=host,
        place=place,
        user=user,
        secrets=(*query, *([user[1]] if user and user[1] else [])),
    )


def without_secrets(url: str) -> str:
    """A URL for messages: no user, no password, no query."""
    scheme, separator, rest = url.partition("?")[0].partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else scheme
