"""A scripted OpenAI-compatible language model for tests: it decomposes prompts of the embedded world by its rules."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from project.decomposition.prompts import DECOMPOSE, QUALITY, VALIDATE
from project.shapes.decomposer import ShapesDecomposer
from tests.helpers import chat_server

MODEL = "tiny-llm"
STAGES = {DECOMPOSE: "decompose", VALIDATE: "validate", QUALITY: "quality"}
Mischief = Callable[[str, str, int], Any]
"""(stage, prompt, attempt) -> a reply, or (status, JSON body), or None for the right reply."""


class LLMServer(chat_server.ChatServer):
    """Serves from `start` to `kill`; remembers (stage, prompt, attempt) of every request."""

    def __init__(self, mischief: Mischief = lambda stage, prompt, attempt: None, seconds: float = 0.0) -> None:
        super().__init__(seconds=seconds)
        self.mischief = mischief
        self.dies_after: int | None = None
        """Requests of the three stages after which everything is answered with 500."""
        self.requests: list[tuple[str, str, int]] = []

    def start(self) -> LLMServer:
        handler = type("Bound", (Handler,), {"home": self})
        self.server = chat_server.HTTPServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        chat_server.threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self


class Handler(chat_server.Handler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        home = self.home
        if home.dies_after is not None and len(home.requests) >= home.dies_after:
            return self.reply(500, {"error": {"message": "out of memory"}})
        if home.key is not None and self.headers.get("Authorization") != f"Bearer {home.key}":
            return self.reply(401, {"error": {"message": "invalid api key"}})
        if body["model"] != MODEL:
            return self.reply(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        with home.lock:
            home.bodies.append(body)
        stage = STAGES.get(body["messages"][0]["content"])
        if stage is None:
            return self.reply(200, completion("yes"))
        task = json.loads(body["messages"][1]["content"])
        with home.lock:
            home.requests.append((stage, task["prompt"], body["seed"]))
        time.sleep(home.seconds)
        said = home.mischief(stage, task["prompt"], body["seed"])
        if isinstance(said, tuple):
            return self.reply(*said)
        self.reply(200, completion(right_reply(stage, task) if said is None else said))

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": [{"id": MODEL}]})


def right_reply(stage: str, task: dict[str, Any]) -> str:
    """What a flawless model says, in a code fence after some reasoning."""
    if stage == "validate":
        fine = {"necessary": True, "invented": False, "unambiguous": True, "reason": ""}
        said: Any = {"verdicts": [{"id": asked["id"], **fine} for asked in task["questions"]]}
    else:
        questions = ShapesDecomposer().decompose(task["prompt"])
        kind = "quality" if stage == "quality" else "semantic"
        links = "about" if stage == "quality" else "depends_on"
        said = {
            "questions": [
                {"id": n, "question": q.text, "tag": q.tag, links: [d + 1 for d in q.depends_on]}
                for n, q in enumerate((q for q in questions if q.kind == kind), start=1)
            ]
        }
    return f"<think> {{let me see}} </think>\n```json\n{json.dumps(said)}\n```"


def completion(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
