"""An OpenAI-compatible server for tests: real HTTP on a local port, answers by rule, faults by script."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from project.judges.openai.server import Server

Client = TypeVar("Client")
Served = TypeVar("Served", bound="ChatServer")
MODEL = "tiny-vlm"
NO_PICTURE = np.zeros((0, 0, 3), dtype=np.uint8)
"""Of a question about a text."""
Rule = Callable[[np.ndarray, str], float]
Writer = Callable[[list[np.ndarray], str, int], Any]
"""(pictures, text, attempt) -> text, or the whole chat completion."""
Fault = tuple[int, Any]
"""Status and JSON body."""


def by_hash(image: np.ndarray, text: str) -> float:
    """A confidence between 0.2 and 0.9 that depends on every byte of picture and text."""
    digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes() + text.encode(), digest_size=4).digest()
    return 0.2 + 0.7 * int.from_bytes(digest, "little") / 2**32


class ChatServer:
    """Serves `/v1/models` and `/v1/chat/completions` from `start` to `kill`, on one port for all its lives.

    Args:
        rule: (picture, text of the question) -> confidence.
        writer: answers requests for free text; the attempt is their seed.
        script: what goes wrong with request number n (from 0, over all lives): "hang", "500", "truncated",
            "no log-probs", "neither", a status with a body, or None.
        seconds: that an answer takes.
        hang_seconds: that a "hang" takes.
    """

    def __init__(
        self,
        rule: Rule = by_hash,
        script: Callable[[int, dict[str, Any]], str | Fault | None] = lambda n, body: None,
        seconds: float = 0.0,
        hang_seconds: float = 1.0,
        writer: Writer = lambda pictures, text, attempt: "yes",
    ) -> None:
        self.rule, self.writer, self.script, self.seconds, self.hang_seconds = (
            rule,
            writer,
            script,
            seconds,
            hang_seconds,
        )
        self.key: str | None = None
        self.page: Fault | None = None
        """Status and body (JSON, or a text) that every request gets, as from a proxy or a gateway."""
        self.headers: dict[str, str] = {}
        """Sent with every answer."""
        self.queries: list[str] = []
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.times: list[tuple[float, float]] = []
        """Beginning and end of each request for an answer [s, `time.monotonic`]."""
        self.faults: list[str] = []
        self.at_work = self.most_at_work = 0
        self.port = 0
        self.server: ThreadingHTTPServer | None = None
        self.connections: set[socket.socket] = set()

    path = "/v1/chat/completions"
    incomplete = "no log-probs"
    """A fault of its own kind: an answer that lacks something."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def said(self, body: dict[str, Any], fault: str | None) -> Any:
        """The answer to a request."""
        if "seed" in body:  # Only requests for free text have one.
            text = self.writer(*shown(body), body["seed"])
            return written(text) if isinstance(text, str) else text
        found = completion(self.rule(*asked(body)))
        if fault == "no log-probs":
            found["choices"][0]["logprobs"] = None
        if fault == "neither":
            found = completion(0.5, words=("The", "A"))
        return found

    def start(self) -> ChatServer:
        handler = type("Bound", (Handler,), {"home": self})
        self.server = HTTPServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def kill(self) -> None:
        """As a killed process goes: the port closed and every connection cut."""
        if self.server is None:
            return
        self.server.shutdown()
        self.server.server_close()
        self.server = None
        with self.lock:
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            self.connections.clear()

    def __enter__(self) -> ChatServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def starting(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[..., Served] = ChatServer
) -> Iterator[Callable[..., Served]]:
    """For a fixture: what makes and starts servers, which end with the test. Waits between retries are short."""
    monkeypatch.setattr("project.judges.openai.servers.BACKOFF", (0.01, 0.05))
    servers: list[Served] = []

    def start(**arguments: Any) -> Served:
        servers.append(kind(**arguments))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


class HTTPServer(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    home: ChatServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        with self.home.lock:
            self.home.connections.add(self.connection)

    def finish(self) -> None:
        with self.home.lock:
            self.home.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        if self.home.page is not None:
            return self.reply(*self.home.page)
        if self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": MODEL}, {"id": "other"}]})
        else:
            self.reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        home = self.home
        if home.page is not None:
            return self.reply(*home.page)
        path, _, query = self.path.partition("?")
        home.queries += [query] if query else []
        if path != home.path:
            return self.reply(404, {"detail": "Not Found"})
        if home.key is not None and self.headers.get("Authorization") != f"Bearer {home.key}":
            return self.reply(401, {"error": {"message": "invalid api key"}})
        if body.get("model", MODEL) != MODEL:
            return self.reply(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        with home.lock:
            number = len(home.bodies)
            home.bodies.append(body)
            home.at_work += 1
            home.most_at_work = max(home.most_at_work, home.at_work)
        began = time.monotonic()
        try:
            self.answer(body, home.script(number, body))
        finally:
            with home.lock:
                home.at_work -= 1
                home.times.append((began, time.monotonic()))

    def answer(self, body: dict[str, Any], fault: str | Fault | None) -> None:
        if fault is not None:
            self.home.faults.append(fault if isinstance(fault, str) else str(fault[0]))
        if isinstance(fault, tuple):
            return self.reply(*fault)
        if fault == "500":
            return self.reply(500, {"error": {"message": "CUDA error: an illegal memory access"}})
        time.sleep(self.home.hang_seconds if fault == "hang" else self.home.seconds)
        self.reply(200, self.home.said(body, fault), cut=fault == "truncated")

    def reply(self, status: int, body: Any, cut: bool = False) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        content = content[: len(content) // 2] if cut else content
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in self.home.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class ScoreServer(ChatServer):
    """Serves `/score` (project/rewards/README.md). The score of a sample is the rule's, of its picture and prompt.

    Its own faults: "short" (a score too few), "words" (texts in place of numbers), "nan" and "null" (no score at all).
    """

    path = "/score"
    incomplete = "short"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def said(self, body: dict[str, Any], fault: str | None) -> Any:
        pictures = [decoded({"image_url": {"url": uri}}) for uri in body["images"]]
        scores: list[Any] = [self.rule(*pair) for pair in zip(pictures, body["prompts"], strict=True)]
        odd = {"short": scores[1:], "words": ["good"] * len(scores), "nan": [math.nan] * len(scores)}
        return {"scores": [None] * len(scores) if fault == "null" else odd.get(fault or "", scores)}


def options(base_url: str | list[str], **settings: Any) -> dict[str, Any]:
    """What a client's `init_args` hold: those of `settings` that are the server's stand under `server`."""
    names = {field.name for field in dataclasses.fields(Server)}
    server = {"base_url": base_url, "model": MODEL} | {k: v for k, v in settings.items() if k in names}
    return {"server": server, **{k: v for k, v in settings.items() if k not in names}}


def client(kind: Callable[..., Client], base_url: str | list[str], **settings: Any) -> Client:
    """A client of this class, made with `options`."""
    made = options(base_url, **settings)
    return kind(**{**made, "server": Server(**made["server"])})


def asked(body: dict[str, Any]) -> tuple[np.ndarray, str]:
    """Picture and text of a request."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return NO_PICTURE, content
    image, text = content
    return decoded(image), text["text"]


def shown(body: dict[str, Any]) -> tuple[list[np.ndarray], str]:
    """Pictures and text of a request with any number of pictures."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return [], content
    *images, text = content
    return [decoded(image) for image in images], text["text"]


def decoded(part: dict[str, Any]) -> np.ndarray:
    """The picture of a content part."""
    encoded = part["image_url"]["url"].partition("base64,")[2]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened.convert("RGB"))


def written(text: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion in free text, with further fields of its message."""
    answer = {"role": "assistant", "content": text, **message}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": answer, "finish_reason": finish_reason}]}


def completion(confidence: float, words: tuple[str, str] = ("Yes", "No")) -> dict[str, Any]:
    """A chat completion whose first token says the words, spelt in several ways, unsorted, beside other tokens."""
    yes, no = words
    masses = {yes: 0.5 * confidence, f" {no}": 0.4 * (1 - confidence), f"▁{yes.upper()}": 0.3 * confidence}
    masses |= {f"Ġ{no.lower()}": 0.4 * (1 - confidence), "Maybe": 0.15, "": 0.05}
    listed = [{"token": token, "logprob": math.log(mass)} for token, mass in masses.items() if mass > 0]
    first = yes if confidence >= 0.5 else f" {no}"
    chosen = next(token for token in listed if token["token"] == first)
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": first},
                "finish_reason": "length",
                "logprobs": {"content": [{**chosen, "top_logprobs": listed}]},
            }
        ],
    }
