"""`ChatServers`: questions to one or several OpenAI-compatible servers that may be slow, broken or away.

Every server has a breaker. Failures in a row that are the server's own open it; the server then gets no question until
a probe, sent every few seconds from a thread of its own, is answered. A question whose server went away under it has
lost nothing: only failures of a working server use up its retries. Where no server works, everyone waits.

Safe to call from several threads.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2 as httpx

T = TypeVar("T")
_log = logging.getLogger(__name__)

BACKOFF = (0.5, 30.0)
"""Longest wait before the first retry, doubled for each further one, and its bound [s]."""
CONNECT_TIMEOUT = 10.0
"""Longest wait for a connection [s]; `timeout` counts if it is shorter."""


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
    "not_served": FailureKind(retry=True, servers_fault=True),  # 401, 403, 404: no question would pass
    "malformed": FailureKind(retry=True, servers_fault=True),  # no JSON, or no chat completion
    "rate_limit": FailureKind(retry=True, servers_fault=False),  # 429
    "incomplete": FailureKind(retry=True, servers_fault=False),  # an answer without what was asked for
    "rejected": FailureKind(retry=False, servers_fault=False),  # other 4xx: this question is not taken
}


class Failure(Exception):
    """A request without a usable answer. `kind` is one of `KINDS`; the message is the server's, if it gave one."""

    def __init__(self, kind: str, message: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        """HTTP status, None if there was no answer."""
        self.retry_after = retry_after
        """Shortest wait that the server asks for [s]."""


class ServersUnavailable(RuntimeError):
    """No server has answered for longer than the patience of the caller."""


class Stopped(Exception):
    """The caller has given up on its questions."""


class _Server:
    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        self.failures = 0
        """In a row, its own fault."""
        self.open = False
        self.probe: threading.Thread | None = None


class ChatServers:
    """Asks the server with the fewest questions at work.

    Args:
        urls: addresses up to and including /v1.
        api_key: sent as bearer token, if given.
        concurrency: questions at work at one server.
        timeout: longest wait for an answer [s].
        retries: further attempts at a question after a failure, with exponential backoff and full jitter.
        breaker_failures: failures in a row after which a server counts as away.
        probe_seconds: between two probes of a server that is away [s].
        patience: longest wait while every server is away [s].
        probe: makes the body of the request that tells whether a server is back.
        who: what the servers are to the caller, for messages.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        api_key: str | None,
        concurrency: int,
        timeout: float,
        retries: int,
        breaker_failures: int,
        probe_seconds: float,
        patience: float,
        probe: Callable[[], Mapping[str, Any]],
        who: str = "judge",
    ) -> None:
        self.urls = tuple(urls)
        self.concurrency = concurrency
        self.timeout = timeout
        self.retries = retries
        self.breaker_failures = breaker_failures
        self.probe_seconds = probe_seconds
        self.patience = patience
        self.probe = probe
        self.who = who
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._servers = [_Server(url) for url in urls]
        self._changed = threading.Condition()
        self._dead_since: float | None = None
        self._impatient = False
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._warned: set[str] = set()
        self._random = random.Random()  # its own: waiting must not disturb the draws of a run
        self._client: httpx.Client | None = None

    def ask_all(self, bodies: Sequence[Mapping[str, Any]], read: Callable[[Any], T]) -> list[T | Failure]:
        """Answers to chat completion requests, many at a time, in their order.

        `read` makes of the decoded JSON what the caller wants, or raises `Failure` if it is not what was asked for.
        A request without an answer, retries and all, gives the last failure.

        Raises:
            ServersUnavailable: if every server has been away for `patience` seconds.
        """
        if not bodies:
            return []
        stop = threading.Event()
        workers = min(len(bodies), self.concurrency * len(self.urls))
        pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="chat")
        try:
            pending = [pool.submit(self.ask, body, read, stop) for body in bodies]
            wait(pending, return_when=FIRST_EXCEPTION)
        finally:
            # Also on Ctrl-C: nobody waits on, and what has not begun never does.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        errors = [error for future in pending if not future.cancelled() and (error := future.exception())]
        if errors:
            raise next((error for error in errors if not isinstance(error, Stopped)), errors[0])
        return [future.result() for future in pending]

    def ask(self, body: Mapping[str, Any], read: Callable[[Any], T], stop: threading.Event) -> T | Failure:
        """One of `ask_all`, for callers with threads of their own.

        The answer, or the last failure when the retries are used up or would not help. Raises Stopped when `stop` is
        set meanwhile, and ServersUnavailable, with `stop` set for the others.
        """
        content = json.dumps(body).encode()
        attempt = opened = 0
        last: _Server | None = None
        while True:
            server = self._take(last, stop)
            try:
                answer = read(self._completion(server.url, content))
            except Failure as failure:
                may_wait = opened < self.retries
                # Nobody there at the last attempt either: before the question is given up a probe finds out.
                nobody = may_wait and failure.kind == "connection" and attempt == self.retries
                if not self._failed(server, failure, suspect=nobody) and may_wait:
                    # The server went away: that says nothing about the question, unless it happens each time.
                    opened, last = opened + 1, None
                    continue
                if not KINDS[failure.kind].retry or attempt == self.retries:
                    return failure
                first, longest = BACKOFF
                pause = self._random.uniform(0.0, min(longest, first * 2**attempt))
                attempt, last = attempt + 1, server
                with self._changed:
                    self._counts["retries"] += 1
                if stop.wait(max(pause, min(failure.retry_after, longest))):
                    raise Stopped from failure
            except BaseException:
                self._release(server)
                raise
            else:
                self._succeeded(server)
                return answer

    def once(self, url: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """Asks one server, whatever its breaker says, without retries. Raises Failure."""
        return read(self._completion(url, json.dumps(body).encode()))

    def models(self, url: str) -> list[str]:
        """Names of the models that a server offers; empty if it does not tell."""
        try:
            listed = self._json(self._http().get(f"{url}/models"))["data"]
            return [str(model["id"]) for model in listed]
        except (Failure, httpx.HTTPError, KeyError, TypeError):
            return []

    def stop_waiting(self) -> None:
        """From now on do not wait while every server is away. Takes no lock: a signal's handler may call it."""
        self._impatient = True

    def metrics(self) -> dict[str, float]:
        """Requests, retries, failures by kind, and the seconds that all requests took together, since the last call."""
        with self._changed:
            counts, self._counts = self._counts, Counter()
            seconds, self._seconds = self._seconds, 0.0
        return {
            "calls": float(counts["calls"]),
            "retries": float(counts["retries"]),
            "request_seconds": seconds,
            **{f"failures/{kind}": float(counts[kind]) for kind in KINDS},
        }

    # ----------------------------------------------------------------- one request

    def _completion(self, url: str, content: bytes) -> Any:
        start = time.monotonic()
        try:
            response = self._http().post(
                f"{url}/chat/completions", content=content, headers={"Content-Type": "application/json"}
            )
            return self._json(response)
        except httpx.TimeoutException as error:
            raise Failure("timeout", f"no answer within {self.timeout:g} s ({type(error).__name__})") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Failure("connection", str(error) or type(error).__name__) from error
        finally:
            with self._changed:
                self._counts["calls"] += 1
                self._seconds += time.monotonic() - start

    def _json(self, response: httpx.Response) -> Any:
        status = response.status_code
        if status == 200:
            try:
                return response.json()
            except ValueError as error:
                raise Failure("malformed", f"no JSON: {response.text[:80]!r}", status) from error
        if status >= 500:
            kind = "server_error"
        else:
            kind = {401: "not_served", 403: "not_served", 404: "not_served", 408: "timeout", 429: "rate_limit"}.get(
                status, "rejected"
            )
        after = response.headers.get("retry-after", "")
        raise Failure(kind, _message(response), status, retry_after=float(after) if after.isdigit() else 0.0)

    def _http(self) -> httpx.Client:
        with self._changed:
            if self._client is None:
                # Its line per request would bury what a command has to say.
                logging.getLogger("httpx2").setLevel(logging.WARNING)
                # Bounded by `concurrency`; a bound on connections too would only turn waiting into time-outs.
                self._client = httpx.Client(
                    headers=self._headers,
                    timeout=httpx.Timeout(self.timeout, connect=min(CONNECT_TIMEOUT, self.timeout)),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                )
            return self._client

    # ----------------------------------------------------------------- who is asked

    def _take(self, avoid: _Server | None, stop: threading.Event) -> _Server:
        """A server with room, another than `avoid` if there is one. Waits for it."""
        with self._changed:
            while True:
                if stop.is_set():
                    raise Stopped
                for server in self._servers:
                    if server.open:  # its probe ends after a while, but it may come back after that
                        self._start_probe(server)
                if free := [s for s in self._servers if not s.open and s.in_flight < self.concurrency]:
                    chosen = min(free, key=lambda server: (server is avoid, server.in_flight))
                    chosen.in_flight += 1
                    return chosen
                if all(server.open for server in self._servers):
                    self._wait_for_life(stop)
                # Woken by whoever finishes; the bound is for `stop`, which nobody announces.
                self._changed.wait(timeout=0.2)

    def _wait_for_life(self, stop: threading.Event) -> None:
        """While everyone is away: for `patience` seconds, then all stop. Holds the lock."""
        now = time.monotonic()
        if self._dead_since is None:
            self._dead_since = now
            _log.warning(
                "the %s does not answer (%s): waiting for it, up to %.0f s",
                self.who,
                ", ".join(server.url for server in self._servers),
                self.patience,
            )
        waited = now - self._dead_since
        if waited > self.patience or self._impatient:
            self._dead_since = None
            stop.set()
            raise ServersUnavailable(
                f"no {self.who} has answered for {waited:.0f} s ({', '.join(self.urls)}): start the server again"
            )

    def _start_probe(self, server: _Server) -> None:
        if server.probe is None or not server.probe.is_alive():
            server.probe = threading.Thread(target=self._revive, args=(server,), daemon=True, name="judge probe")
            server.probe.start()

    def _revive(self, server: _Server) -> None:
        """Probes a server until it answers, or nobody can be waiting for it any longer."""
        content = json.dumps(self.probe()).encode()
        until = time.monotonic() + self.patience
        while time.monotonic() < until:
            time.sleep(self.probe_seconds)
            try:
                self._completion(server.url, content)
            except Failure:
                continue
            with self._changed:
                server.open, server.failures = False, 0
                if self._dead_since is not None:
                    seconds = time.monotonic() - self._dead_since
                    _log.warning("the %s answers again, after %.0f s", self.who, seconds)
                    self._dead_since = None
                self._changed.notify_all()
            return

    def _failed(self, server: _Server, failure: Failure, suspect: bool) -> bool:
        """Counts a failure; whether the server is still taken to work, which a `suspect` one is not."""
        kind = KINDS[failure.kind]
        with self._changed:
            server.in_flight -= 1
            self._counts[failure.kind] += 1
            if failure.kind not in self._warned:
                self._warned.add(failure.kind)
                _log.warning("first failure of kind %r at %s: %s", failure.kind, server.url, failure)
            if kind.servers_fault:
                server.failures += 1
                if (suspect or server.failures >= self.breaker_failures) and not server.open:
                    server.open = True
                    self._start_probe(server)
            self._changed.notify_all()
            return not (server.open and kind.servers_fault)

    def _succeeded(self, server: _Server) -> None:
        with self._changed:
            server.failures = 0
        self._release(server)

    def _release(self, server: _Server) -> None:
        with self._changed:
            server.in_flight -= 1
            self._changed.notify_all()


def addresses(base_url: str | list[str]) -> list[str]:
    """The servers' addresses, up to and including /v1. Raises ValueError for what is none."""
    given = [base_url] if isinstance(base_url, str) else list(base_url)
    if not given:
        raise ValueError("base_url is empty: give the address of a server, e.g. http://localhost:8000/v1")
    for address in given:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"base_url={address!r} is no address: give one such as http://localhost:8000/v1")
        if parts.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError(f"base_url={address!r}: give it without /chat/completions, up to and including /v1")
    return [address.rstrip("/") for address in given]


def key_of(api_key: str | None, variable: str | None) -> str | None:
    """The key itself, or that in the environment variable of this name. Raises ValueError if it is not set."""
    if api_key and variable:
        raise ValueError("api_key and api_key_env are both given: give one")
    if variable and not os.environ.get(variable):
        raise ValueError(f"api_key_env: the environment variable {variable} is not set: export {variable}=...")
    return os.environ[variable] if variable else api_key


def _message(response: httpx.Response) -> str:
    """What the server says is wrong, shortened."""
    if "location" in response.headers:
        return f"redirects to {response.headers['location']}"
    try:
        found = response.json()
    except ValueError:
        found = response.text
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return f"{response.status_code}: {str(found).strip()[:300]}"
