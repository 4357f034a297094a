"""`Servers`: questions to one or several equal servers that may be slow, broken or away.

Every server has a breaker. Failures in a row that are the server's own open it; the server then gets no question until
a probe, sent every few seconds from a thread of its own, is answered. A question whose server went away under it has
lost nothing: only failures of a working server use up its retries. Where no server works, everyone waits.

Safe to call from several threads.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from project.judges.openai.connection import Connection
from project.judges.openai.failures import KINDS, Failure
from project.judges.openai.remedies import Advice, Remedies
from project.judges.openai.server import Address, Service

T = TypeVar("T")
_log = logging.getLogger(__name__)

BACKOFF = (0.5, 30.0)
"""Longest wait before the first retry, doubled for each further one, and its bound [s]."""
PREFLIGHT_ATTEMPTS = 3
PASSING = ("timeout", "server_error", "malformed", "rate_limit")
"""Kinds of failures that are no reason to refuse a run at once."""


class ServersUnavailable(RuntimeError):
    """No server has answered for longer than the patience of the caller."""


class Stopped(Exception):
    """The caller has given up on its questions."""


class _Breaker:
    """One server, and whether it is asked."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.address = connection.address
        self.in_flight = 0
        self.failures = 0
        """In a row, its own fault."""
        self.last: Failure | None = None
        """The last failure that was its own fault."""
        self.open = False
        self.probe: threading.Thread | None = None


class Servers:
    """Asks the server with the fewest questions at work.

    Args:
        server: addresses, key, patience and so on.
        timeout: longest wait for an answer where `server` names none [s].
        probe: makes the body of the request that tells whether a server works.
        probe_is: what that request is, for messages ("a question about ...").
        who: what the servers are to the caller, for messages.
        remedies: against what servers say of requests of this caller.

    Raises:
        ValueError: if there is no key where `server` says.
    """

    def __init__(
        self,
        server: Service,
        *,
        timeout: float,
        probe: Callable[[], Mapping[str, Any]],
        probe_is: str,
        who: str = "judge",
        remedies: Remedies = (),
    ) -> None:
        self.server = server
        self.timeout = server.timeout or timeout
        self.probe = probe
        self.who = who
        self._advice = Advice(server=server, probe=probe, probe_is=probe_is, remedies=remedies)
        key, addresses = server.key(), server.addresses()
        secrets = [secret for address in addresses for secret in address.secrets] + ([key] if key else [])
        self._servers = [_Breaker(Connection(address, key, self.timeout, secrets)) for address in addresses]
        self._changed = threading.Condition()
        self._dead_since: float | None = None
        self._impatient = False
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._warned: set[str] = set()
        self._random = random.Random()  # its own: waiting must not disturb the draws of a run

    def ask_all(
        self, bodies: Sequence[Mapping[str, Any]], read: Callable[[Any], T] | Sequence[Callable[[Any], T]]
    ) -> list[T | Failure]:
        """Answers to requests, e.g. for chat completions, many at a time, in their order.

        `read` makes of the decoded JSON what the caller wants, or raises `Failure` if it is not what was asked for. It
        may be one for each request.
        A request without an answer, retries and all, gives the last failure.

        Raises:
            ServersUnavailable: if every server has been away for `patience` seconds.
        """
        if not bodies:
            return []
        stop = threading.Event()
        workers = min(len(bodies), self.server.concurrency * len(self._servers))
        pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="chat")
        try:
            readers = [read] * len(bodies) if callable(read) else read
            pending = [pool.submit(self.ask, body, one, stop) for body, one in zip(bodies, readers, strict=True)]
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
        last: _Breaker | None = None
        while True:
            server = self._take(last, stop)
            try:
                answer = read(self._completion(server, content))
            except Failure as failure:
                may_wait = opened < self.server.retries
                # Nobody there at the last attempt either: before the question is given up a probe finds out.
                nobody = may_wait and failure.kind == "connection" and attempt == self.server.retries
                if not self._failed(server, failure, suspect=nobody) and may_wait:
                    # The server went away: that says nothing about the question, unless it happens each time.
                    opened, last = opened + 1, None
                    continue
                if not KINDS[failure.kind].retry or attempt == self.server.retries:
                    return failure
                first, longest = BACKOFF
                pause = self._random.uniform(0.0, min(longest, first * 2**attempt))
                attempt, last = attempt + 1, server
                with self._changed:
                    self._counts["retries"] += 1
                self._pause(max(pause, min(failure.retry_after, self.server.patience)), failure, server, stop)
            except BaseException:
                self._release(server)
                raise
            else:
                self._succeeded(server)
                return answer

    def preflight(self, read: Callable[[Any], T]) -> list[tuple[Address, T]]:
        """The probe, to every server: what `read` makes of the answers.

        Raises:
            ValueError: with the remedy, if a server does not answer it or the environment is at fault.
        """
        body = json.dumps(self.probe()).encode()
        found = []
        for server in self._servers:
            for attempt in range(PREFLIGHT_ATTEMPTS):
                try:
                    found.append((server.address, read(self._completion(server, body))))
                    break
                except Failure as failure:
                    # A passing hiccup is no reason to refuse a run.
                    if failure.kind not in PASSING or attempt == PREFLIGHT_ATTEMPTS - 1:
                        shown = server.address.shown
                        raise ValueError(
                            f"{self.who} at {shown}: {self._advice.remedy(server.connection, failure)}"
                        ) from failure
        return found

    def remedy(self, failure: Failure) -> str:
        """What to do about a failure of whichever server."""
        return self._advice.remedy(self._servers[0].connection, failure)

    @property
    def longest_wait(self) -> float:
        """Seconds: `patience` while every server is away, and one question with all of its retries."""
        return self.server.patience + (self.server.retries + 1) * (self.timeout + BACKOFF[1])

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

    def _completion(self, server: _Breaker, content: bytes) -> Any:
        start = time.monotonic()
        try:
            return server.connection.completion(content)
        finally:
            with self._changed:
                self._counts["calls"] += 1
                self._seconds += time.monotonic() - start

    # ----------------------------------------------------------------- who is asked

    def _take(self, avoid: _Breaker | None, stop: threading.Event) -> _Breaker:
        """A server with room, another than `avoid` if there is one. Waits for it."""
        with self._changed:
            while True:
                if stop.is_set():
                    raise Stopped
                for server in self._servers:
                    if server.open:  # its probe ends after a while, but it may come back after that
                        self._start_probe(server)
                if free := [s for s in self._servers if not s.open and s.in_flight < self.server.concurrency]:
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
                self._shown(),
                self.server.patience,
            )
        waited = now - self._dead_since
        if waited > self.server.patience or self._impatient:
            self._dead_since = None
            stop.set()
            raise ServersUnavailable(
                f"no {self.who} has answered for {waited:.0f} s ({self._shown()}): {self._last_word()}"
            )

    def _last_word(self) -> str:
        """What to do about the servers that are all away."""
        server = next((one for one in self._servers if one.last is not None), None)
        if server is None or server.last is None:
            return "start the server again"
        if server.last.kind in ("connection", "timeout"):
            return f"{server.last}: start the server again{self._advice.way(server.connection, server.last)}"
        return self._advice.remedy(server.connection, server.last)

    def _shown(self) -> str:
        return ", ".join(server.address.shown for server in self._servers)

    def _pause(self, seconds: float, failure: Failure, server: _Breaker, stop: threading.Event) -> None:
        """Waits before another attempt; not for long once nobody wants to wait any more."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._impatient and left > BACKOFF[1]:
                stop.set()
                raise ServersUnavailable(
                    f"the {self.who} at {server.address.shown} asks to wait {failure.retry_after:.0f} s ({failure})"
                )
            if stop.wait(min(left, 0.2)):
                raise Stopped from failure

    def _start_probe(self, server: _Breaker) -> None:
        if server.probe is None or not server.probe.is_alive():
            server.probe = threading.Thread(target=self._revive, args=(server,), daemon=True, name="judge probe")
            server.probe.start()

    def _revive(self, server: _Breaker) -> None:
        """Probes a server until it answers, or nobody can be waiting for it any longer."""
        content = json.dumps(self.probe()).encode()
        until = time.monotonic() + self.server.patience
        while time.monotonic() < until:
            time.sleep(self.server.probe_seconds)
            try:
                self._completion(server, content)
            except Failure as failure:
                server.last = failure
                continue
            with self._changed:
                server.open, server.failures = False, 0
                if self._dead_since is not None:
                    seconds = time.monotonic() - self._dead_since
                    _log.warning("the %s answers again, after %.0f s", self.who, seconds)
                    self._dead_since = None
                self._changed.notify_all()
            return

    def _failed(self, server: _Breaker, failure: Failure, suspect: bool) -> bool:
        """Counts a failure; whether the server is still taken to work, which a `suspect` one is not."""
        kind = KINDS[failure.kind]
        with self._changed:
            server.in_flight -= 1
            self._counts[failure.kind] += 1
            if failure.kind not in self._warned:
                self._warned.add(failure.kind)
                _log.warning("first failure of kind %r at %s: %s", failure.kind, server.address.shown, failure)
            if kind.servers_fault:
                server.failures += 1
                server.last = failure
                if (suspect or server.failures >= self.server.breaker_failures) and not server.open:
                    server.open = True
                    self._start_probe(server)
            self._changed.notify_all()
            return not (server.open and kind.servers_fault)

    def _succeeded(self, server: _Breaker) -> None:
        with self._changed:
            server.failures = 0
        self._release(server)

    def _release(self, server: _Breaker) -> None:
        with self._changed:
            server.in_flight -= 1
            self._changed.notify_all()
