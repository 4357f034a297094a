"""What a failed request to a server is, and what follows from it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin

from project.judges.openai.server import without_secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureKind:
    """What follows from a failed request."""

    retry: bool
    """Whether to ask again."""
    servers_fault: bool
    """Whether it counts against the server (its breaker), or is about this question alone."""


KINDS: Mapping[str, FailureKind] = {
    "timeout": FailureKind(retry=True, servers_fault=True),
    "connection": FailureKind(retry=True, servers_fault=True),
    "server_error": FailureKind(retry=True, servers_fault=True),  # 5xx
    "not_served": FailureKind(retry=True, servers_fault=True),  # 401, 402, 403, 404, a redirect: no question passes
    "malformed": FailureKind(retry=True, servers_fault=True),  # no JSON, or no chat completion
    "rate_limit": FailureKind(retry=True, servers_fault=False),  # 429
    "incomplete": FailureKind(retry=True, servers_fault=False),  # an answer without what was asked for
    "rejected": FailureKind(retry=False, servers_fault=False),  # other 4xx: this question is not taken
}


OF_STATUS = {
    401: "not_served",
    402: "not_served",
    403: "not_served",
    404: "not_served",
    407: "not_served",
    408: "timeout",
    429: "rate_limit",
}
"""Kinds of the failures that have a status below 500; others are `rejected`."""
NO_CREDIT = re.compile(r"insufficient.(quota|balance|credit|funds)", re.IGNORECASE)


class Failure(Exception):
    """A request without a usable answer. `kind` is one of `KINDS`; the message is the server's, if it gave one."""

    def __init__(
        self, kind: str, message: str, status: int | None = None, retry_after: float = 0.0, api: bool = False
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        """HTTP status, None if there was no answer."""
        self.retry_after = retry_after
        """Shortest wait that the server asks for [s]."""
        self.api = api
        """Whether an API said so, in JSON; else it may be a proxy or a web page that did."""


def refusal(
    said: Any,
    status: int | None,
    headers: Mapping[str, str] = MappingProxyType({}),
    url: str = "",
    api: bool = True,
) -> Failure:
    """What a server says in place of an answer.

    Args:
        said: the body of its answer.
        status: HTTP status; None if it is not known.
        url: that was asked.
        api: see `Failure`.
    """
    message = _message(said)
    if status is None or status >= 500:
        kind = "server_error"
    elif NO_CREDIT.search(str(said)):
        kind = "not_served"
    else:
        kind = "not_served" if 300 <= status < 400 else OF_STATUS.get(status, "rejected")
    if status is not None and 300 <= status < 400 and "location" in headers:
        message = f"redirects to {without_secrets(urljoin(url, headers['location']))}"
    shown = message if status is None else f"{status}: {message}"
    return Failure(kind, shown, status, retry_after=_retry_after(headers), api=api)


def status_of(error: Mapping[str, Any]) -> int | None:
    """The status that an error inside an answer of status 200 would have had."""
    for name in ("code", "status", "status_code"):
        value = str(error.get(name, ""))
        if value.isdecimal() and 300 <= int(value) < 600:
            return int(value)
    kinds = f"{error.get('code')} {error.get('type')}"
    return 429 if re.search(r"rate.?limit", kinds, re.IGNORECASE) else None


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait: a number or a date; 0 if it does not."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        given = headers.get(name, "").strip()
        try:
            seconds = float(given) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(given).timestamp() - time.time()
            except (ValueError, TypeError):
                continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    return 0.0


def _message(said: Any) -> str:
    """What a server says is wrong, shortened."""
    for key in ("error", "message", "detail"):
        if isinstance(said, Mapping) and key in said:
            said = said[key]
    return str(said).strip()[:300]
