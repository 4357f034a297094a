"""Answers of servers to a judge's requests, and when a judge has stopped answering: the same for every judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from project.judges.base import JudgeUnavailable
from project.judges.openai.failures import Failure
from project.judges.openai.servers import Servers, ServersUnavailable

T = TypeVar("T")


def answers_of(
    servers: Servers,
    bodies: Sequence[Mapping[str, Any]],
    read: Callable[[Any], T] | Sequence[Callable[[Any], T]],
    what: str = "questions",
) -> list[T | None]:
    """Of each request what `read` makes of the answer (see `Servers.ask_all`); None without one, after all retries.

    Args:
        what: the requests are called in messages.

    Raises:
        JudgeUnavailable: if no server answers for `patience` seconds, or every one of at least `breaker_failures`
            requests failed.
    """
    judge = f"{servers.who} {servers.server.shown}"
    try:
        outcomes = servers.ask_all(bodies, read)
    except ServersUnavailable as error:
        raise JudgeUnavailable(f"{judge}: {error}") from error
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if len(failures) == len(outcomes) >= servers.server.breaker_failures:
        raise JudgeUnavailable(
            f"{judge}: every one of {len(outcomes)} {what} failed, at last with {failures[-1].kind}: "
            f"{servers.remedy(failures[-1])}"
        )
    return [None if isinstance(outcome, Failure) else outcome for outcome in outcomes]
