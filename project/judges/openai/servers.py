"""`ChatServers`: questions to one or several OpenAI-compatible servers that may be slow, broken or away.

Every server has a breaker. Failures in a row that are the server's own open it; the server then gets no question until
a probe, sent every few seconds from a thread of its own, is answered. A question whose server went away under it has
lost nothing: only failures of a working server use up its retries. Where no server works, everyone waits.

Safe to call from several threads.
"""

from __future__ import annotations

import json
import logging
import math
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urljoin

import httpx2 as httpx

from project.judges.openai.environment import client_of, proxy_of
from project.judges.openai.replies import error_inside
from project.judges.openai.server import Address, Server, without_secrets

T = TypeVar("T")
_log = logging.getLogger(__name__)

BACKOFF = (0.5, 30.0)
"""Longest wait before the first retry, doubled for each further one, and its bound [s]."""
PREFLIGHT_ATTEMPTS = 3
PASSING = ("timeout", "server_error", "malformed", "rate_limit")
"""Kinds of failures that are no reason to refuse a run at once."""


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
TOO_LONG = re.compile(
    r"context.(length|size|window)|n_ctx|max_model_len|maximum model length|exceed_context", re.IGNORECASE
)
NOT_TAKEN = re.compile(r"[Uu]nsupported (?:parameter|value):? ['\"`](\w+)['\"`]")
OTHER_LIMIT = "max_completion_tokens"
"""What some models call max_tokens."""
Remedies = Sequence[tuple[re.Pattern[str], str]]
"""What a server says, and what is to be done about it."""


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


class ServersUnavailable(RuntimeError):
    """No server has answered for longer than the patience of the caller."""


class Stopped(Exception):
    """The caller has given up on its questions."""


class _Breaker:
    """One server, and whether it is asked."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.in_flight = 0
        self.failures = 0
        """In a row, its own fault."""
        self.last: Failure | None = None
        """The last failure that was its own fault."""
        self.open = False
        self.probe: threading.Thread | None = None
        self.client: httpx.Client | None = None


class ChatServers:
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
        server: Server,
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
        self.probe_is = probe_is
        self.who = who
        self.remedies = remedies
        key = server.key()
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._servers = [_Breaker(address) for address in server.addresses()]
        self._secrets = [s for breaker in self._servers for s in breaker.address.secrets] + ([key] if key else [])
        self._changed = threading.Condition()
        self._dead_since: float | None = None
        self._impatient = False
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._warned: set[str] = set()
        self._random = random.Random()  # its own: waiting must not disturb the draws of a run

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
        workers = min(len(bodies), self.server.concurrency * len(self._servers))
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
                        raise ValueError(f"{self.who} at {shown}: {self._remedy(server, failure)}") from failure
        return found

    def remedy(self, failure: Failure) -> str:
        """What to do about a failure of whichever server."""
        return self._remedy(self._servers[0], failure)

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

    # ----------------------------------------------------------------- one request

    def _completion(self, server: _Breaker, content: bytes) -> Any:
        start = time.monotonic()
        try:
            found = self._sent(server, "POST", server.address.chat, content)
        finally:
            with self._changed:
                self._counts["calls"] += 1
                self._seconds += time.monotonic() - start
        if error := error_inside(found):
            raise self._refused(error, status=_status(error))
        return found

    def _models(self, server: _Breaker) -> list[str]:
        """Names of the models that a server offers; empty if it does not tell."""
        try:
            return [str(model["id"]) for model in self._sent(server, "GET", server.address.models)["data"]]
        except (Failure, KeyError, TypeError):
            return []

    def _sent(self, server: _Breaker, method: str, url: str, content: bytes | None = None) -> Any:
        """The JSON that a server answers with status 200. Raises Failure for anything else."""
        try:
            response = self._http(server).request(method, url, content=content)
        except httpx.TimeoutException as error:
            raise Failure("timeout", f"no answer within {self.timeout:g} s ({type(error).__name__})") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Failure("connection", self._hidden(str(error) or type(error).__name__)) from error
        try:
            found = response.json()
        except ValueError:
            found = None
        status = response.status_code
        if status != 200:
            said = response.text if found is None else found
            raise self._refused(said, status, response.headers, url, api=found is not None)
        if found is None:
            raise Failure("malformed", self._hidden(f"no JSON: {response.text[:80]!r}"), status)
        return found

    def _refused(
        self,
        said: Any,
        status: int | None,
        headers: Mapping[str, str] = MappingProxyType({}),
        url: str = "",
        api: bool = True,
    ) -> Failure:
        """What a server says in place of an answer."""
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
        return Failure(kind, self._hidden(shown), status, retry_after=_retry_after(headers), api=api)

    def _hidden(self, text: str) -> str:
        """The text without keys: servers like to repeat them."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _http(self, server: _Breaker) -> httpx.Client:
        with self._changed:
            if server.client is None:
                # Its line per request would bury what a command has to say.
                logging.getLogger("httpx2").setLevel(logging.WARNING)
                server.client = client_of(server.address, self._headers, self.timeout)
            return server.client

    # ----------------------------------------------------------------- what to do about a failure

    def _remedy(self, server: _Breaker, failure: Failure) -> str:
        return self._remedy_of(server, failure) + self._way(server, failure)

    def _way(self, server: _Breaker, failure: Failure) -> str:
        """The proxy that may have answered, or not let through, what no API answered."""
        proxy = None if failure.api else proxy_of(server.address)
        return "" if proxy is None else f". The request went through {proxy}: {proxy.remedy}"

    def _remedy_of(self, server: _Breaker, failure: Failure) -> str:
        model = self.server.model
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
            keyless = "Authorization" not in self._headers
            sent = "it wants a key and none was sent" if keyless else "the key was refused"
            where = self.server.api_key_env or "api_key"
            remedy = (
                "set api_key_env to the name of the environment variable that holds the key"
                if keyless or not self.server.api_key_env
                else f"put a valid key into {where} (api_key_env)"
            )
            return f"{sent} ({failure}): {remedy}"
        if failure.status == 404 or (failure.kind == "rejected" and re.search(r"\bmodel\b.*\bnot\b", str(failure))):
            models = self._models(server)
            if models and model not in models:
                return f"there is no model {model!r} ({failure}): set model to one of {', '.join(models)}"
            if not models and failure.status == 404:
                return f"no chat completions under this address ({failure}): give base_url up to and including /v1"
        if failure.kind == "malformed":
            return f"that is no chat completion ({failure}): is this an OpenAI-compatible server?"
        if failure.kind == "rate_limit":
            return f"it takes no more requests for now ({failure}): lower concurrency, or wait"
        for said, remedy in self._all_remedies(str(failure)):
            if said.search(str(failure)):
                return f"{remedy}. It says: {failure}"
        if failure.kind == "server_error":
            return f"it fails ({failure}): see the server's log"
        return f"the question is refused ({failure}): see the server's log"

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
            return f"{server.last}: start the server again{self._way(server, server.last)}"
        return self._remedy(server, server.last)

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


def _connection_remedy(failure: Failure) -> str:
    said = str(failure)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            f"its certificate is signed by nobody known here ({said}): name the file of its authority in SSL_CERT_FILE"
        )
    if re.search(r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE", said):
        return f"it does not speak https ({said}): write http:// in base_url"
    return f"nothing answers there ({said}): start the server, or correct base_url"


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


def _status(error: Mapping[str, Any]) -> int | None:
    """The status that an error inside an answer of status 200 would have had."""
    for name in ("code", "status", "status_code"):
        value = str(error.get(name, ""))
        if value.isdecimal() and 300 <= int(value) < 600:
            return int(value)
    kinds = f"{error.get('code')} {error.get('type')}"
    return 429 if re.search(r"rate.?limit", kinds, re.IGNORECASE) else None


def _message(said: Any) -> str:
    """What a server says is wrong, shortened."""
    for key in ("error", "message", "detail"):
        if isinstance(said, Mapping) and key in said:
            said = said[key]
    return str(said).strip()[:300]
