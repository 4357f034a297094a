"""`Connection`: one server over HTTP. It either answers, or there is a `Failure`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import httpx2 as httpx

from project.judges.openai.environment import client_of
from project.judges.openai.failures import Failure, refusal, status_of
from project.judges.openai.replies import error_inside
from project.judges.openai.server import Address


class Connection:
    """Sends requests to one server. Safe to call from several threads.

    Args:
        address: of the server.
        key: that is sent with every request, if any.
        timeout: longest wait for an answer [s].
        secrets: texts that no message may hold: servers like to repeat them.
    """

    def __init__(self, address: Address, key: str | None, timeout: float, secrets: Sequence[str]) -> None:
        self.address = address
        self.keyless = not key
        self.timeout = timeout
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._secrets = secrets
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    def completion(self, content: bytes) -> Any:
        """The decoded answer to a request, e.g. for a chat completion. Raises Failure."""
        found = self._sent("POST", self.address.requests, content)
        if error := error_inside(found):
            raise self._shown(refusal(error, status=status_of(error)))
        return found

    def models(self) -> list[str]:
        """Names of the models that the server offers; empty if it does not tell."""
        try:
            return [str(model["id"]) for model in self._sent("GET", self.address.models)["data"]]
        except (Failure, KeyError, TypeError):
            return []

    def _sent(self, method: str, url: str, content: bytes | None = None) -> Any:
        """The JSON that the server answers with status 200. Raises Failure for anything else."""
        try:
            response = self._http().request(method, url, content=content)
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
            raise self._shown(refusal(said, status, response.headers, url, api=found is not None))
        if found is None:
            raise Failure("malformed", self._hidden(f"no JSON: {response.text[:80]!r}"), status)
        return found

    def _http(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                # Its line per request would bury what a command has to say.
                logging.getLogger("httpx2").setLevel(logging.WARNING)
                self._client = client_of(self.address, self._headers, self.timeout)
            return self._client

    def _shown(self, failure: Failure) -> Failure:
        """The failure without keys in its message."""
        failure.args = (self._hidden(str(failure)),)
        return failure

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text
