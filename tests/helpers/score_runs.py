"""Files around `python -m project score`: pictures and rows to write, and results to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers import chat_server


def save(picture: np.ndarray, file: Path, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(file, **options)


def grey(level: int, side: int = 8) -> np.ndarray:
    """A plain picture, uint8 [side, side, 3]."""
    return np.full((side, side, 3), level, dtype=np.uint8)


def write_rows(file: Path, rows: Sequence[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def results(out: Path) -> Any:
    return json.loads((out / "results.json").read_text())


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


def served(name: str, server: chat_server.ChatServer, **settings: Any) -> list[str]:
    """`--judge` of a class of `project.judges` that asks a server."""
    init_args = chat_server.options(server.url, **settings)
    return ["--judge", json.dumps({"class_path": f"project.judges.{name}", "init_args": init_args})]
