"""`Server`: the options of an OpenAI-compatible server, the same for every client of one; `Service`: of any server.

A service takes requests in JSON and answers in JSON. An OpenAI-compatible server is one whose requests are chats.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit, urlunsplit

QUOTES = "\"'`"


@dataclass(frozen=True, slots=True)
class Address:
    """Where one server is."""

    requests: str
    """URL that requests are sent to."""
    models: str
    """URL of the list of models, of servers that have one."""
    shown: str
    """For messages: the `base_url` without user, password and query, which may hold a key."""
    scheme: str
    host: str
    place: str
    """Host and port."""
    user: tuple[str, str] | None = field(default=None, repr=False)
    """Name and password, for servers behind basic authentication."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Parts of the address that no message may hold."""


@dataclass(frozen=True, slots=True)
class Service:
    """A server that takes requests in JSON, or several equal ones, and how patient its clients are.

    Args:
        base_url: address of a server, or several addresses of equal servers. Requests go to `path` below it.
        api_key: key of the server. It is written to the run's config.yaml: prefer `api_key_env`.
        api_key_env: name of the environment variable that holds the key.
        timeout: longest wait for one answer [s]; if None, 60.
        concurrency: requests at work at one server, for each rank of a training.
        retries: further attempts at a request after a failure.
        breaker_failures: failures in a row after which a server counts as away.
        probe_seconds: between two attempts to reach a server that is away [s].
        patience: longest wait while every server is away, or for what a server asks to wait [s].

    Raises:
        ValueError: for an address that is none, a key that cannot be sent, or numbers out of range.
    """

    path: ClassVar[str] = "/score"
    example: ClassVar[str] = "http://localhost:8000"
    answer: ClassVar[str] = "score list"
    """What it answers with, for messages."""
    kind: ClassVar[str] = "a reward service (project/rewards/README.md)"
    """What it is, for messages."""
    whole_url: ClassVar[str] = f"the address without {path}"
    """What base_url holds, for messages."""

    base_url: str | list[str]
    api_key: str | None = field(default=None, repr=False, kw_only=True)
    api_key_env: str | None = field(default=None, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    concurrency: int = field(default=32, kw_only=True)
    retries: int = field(default=4, kw_only=True)
    breaker_failures: int = field(default=8, kw_only=True)
    probe_seconds: float = field(default=5.0, kw_only=True)
    patience: float = field(default=1800.0, kw_only=True)

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("retries", 0), ("breaker_failures", 1)):
            if (value := getattr(self, name)) < least:
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
            raise ValueError(f"base_url is empty: give the address of a server, e.g. {self.example}")
        return [address_of(one, self) for one in given]

    @property
    def shown(self) -> str:
        """What tells this one from others, for messages."""
        return ", ".join(address.shown for address in self.addresses())

    def key(self) -> str | None:
        """The key, given or from the environment. Raises ValueError if the variable holds none that can be sent."""
        if self.api_key_env is None:
            return None if self.api_key is None else checked_key(self.api_key, "api_key")
        if self.api_key_env not in os.environ:
            raise ValueError(
                f"api_key_env: the environment variable {self.api_key_env} is not set: export {self.api_key_env}=..."
            )
        return checked_key(os.environ[self.api_key_env], f"the environment variable {self.api_key_env}")


@dataclass(frozen=True, slots=True)
class Server(Service):
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

    path: ClassVar[str] = "/chat/completions"
    example: ClassVar[str] = "http://localhost:8000/v1"
    answer: ClassVar[str] = "chat completion"
    kind: ClassVar[str] = "an OpenAI-compatible server"
    whole_url: ClassVar[str] = "base_url up to and including /v1"

    model: str
    max_tokens: int | None = field(default=None, kw_only=True)
    extra_body: dict[str, Any] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        Service.__post_init__(self)
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens}: give 1 or more")

    @property
    def shown(self) -> str:
        return repr(self.model)

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


def address_of(base_url: str, service: Service | type[Service] = Server) -> Address:
    """A `base_url` of a service in its parts; a query (`?api-version=...`) stays behind the path. Raises ValueError."""
    url = base_url.strip()
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        parts, port, host = urlsplit(""), None, ""
    if parts.scheme not in ("http", "https") or not host or any(not character >= "!" for character in url):
        raise ValueError(f"base_url={without_secrets(base_url)!r} is no address: give one such as {service.example}")
    path = parts.path.rstrip("/")
    place = f"[{host}]" if ":" in host else host
    place = place if port is None else f"{place}:{port}"
    shown = urlunsplit((parts.scheme, place, path, "", ""))
    if path.endswith(service.path):
        raise ValueError(f"base_url={shown!r}: give it without {service.path}, such as {service.example}")
    user = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
    query = [value for pair in parts.query.split("&") if (value := pair.partition("=")[2])]
    return Address(
        requests=urlunsplit((parts.scheme, place, f"{path}{service.path}", parts.query, "")),
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
