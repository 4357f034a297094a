"""Prompt files -> `Prompt`: JSONL in the published DVReward form, plain text, Parquet, or a Hugging Face dataset.

A JSONL row is an object with `prompt` (or `question`) and, optionally, `semantic_questions` and `quality_questions`
(see `project/data/questions.py`), `id` and `image` (a path that starts at the file's folder; "" = none); every other
key lands in `Prompt.columns`. A prompt in chat form is read where it is one message of the user.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from project.core.json_files import read_lines, read_rows
from project.data.dataset_files import Rows, folder_rows, hub_rows, parquet_rows
from project.data.questions import question_row, read_questions
from project.trajectory import Prompt

_SLICE = re.compile(r"(?P<path>.+)\[(?P<bounds>-?\d*:-?\d*(:-?\d*)?)\]")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)
FIELDS = ("prompt", "id", "image", "semantic_questions", "quality_questions")


def read_prompts(path: str | Path, columns: Mapping[str, str] | None = None) -> list[Prompt]:
    """All prompts of a `.jsonl`, `.txt` (one prompt a line) or `.parquet` file, or of a folder or hub id of a dataset.

    A slice at the end takes some of them, in Python's own way: `eval.jsonl[::4]` every fourth, `eval.jsonl[:100]`.

    `columns` renames: field of `FIELDS` -> the name it has in the file, e.g. {"prompt": "caption"}. A prompt
    without an id gets a hash of its row's content, so ids do not depend on the order of the file.

    Raises FileNotFoundError for a missing file, ValueError (file:line and remedy) for unusable content.
    """
    renamed = dict(columns or {})
    if unknown := sorted(set(renamed) - set(FIELDS)):
        raise ValueError(f"columns: unknown field {unknown[0]!r}: choose of {', '.join(FIELDS)}")
    path, some = _sliced(path)
    rows, folder = _rows(Path(path), renamed.get("prompt", "prompt"))
    prompts = _prompts(rows, renamed, folder)
    if not prompts:
        raise ValueError(f"{path}: holds no prompt: write one a line")
    if not prompts[some]:
        raise ValueError(f"{path} holds {len(prompts)} prompt(s), none of them in the slice: take a larger one")
    return prompts[some]


def _rows(path: Path, text: str) -> tuple[Rows, Path]:
    """The rows of a file, folder or hub id, and the folder that paths in them start at; lines of text become `text`."""
    if path.is_dir():
        return folder_rows(path), path
    if not path.exists() and not path.suffix and len(path.parts) == 2:
        return hub_rows(str(path)), Path()
    if not path.exists():
        raise FileNotFoundError(f"there is no prompt file {path}: check the path (now in {Path.cwd()})")
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return read_rows(path), path.parent
    if suffix == ".txt":
        return ((place, {text: line}) for place, line in read_lines(path)), path.parent
    if suffix == ".parquet":
        return parquet_rows(path), path.parent
    raise ValueError(
        f"{path}: cannot read {path.suffix or 'a file without extension'}: give .jsonl or .txt (or .parquet)"
    )


def _sliced(path: str | Path) -> tuple[str | Path, slice]:
    """A path and the slice written behind it. Raises ValueError for a step of 0."""
    if Path(path).exists() or not (written := _SLICE.fullmatch(str(path))):
        return path, slice(None)
    bounds = [int(bound) if bound else None for bound in (written["bounds"] + ":").split(":")[:3]]
    if bounds[2] == 0:
        raise ValueError(f"{path}: a slice's step cannot be 0: write [::4] for every fourth prompt")
    return written["path"], slice(*bounds)


def prompt_row(prompt: Prompt, folder: str | Path = ".") -> dict[str, Any]:
    """The row of a prompt file in `folder` that `read_prompts` reads as this prompt."""
    row: dict[str, Any] = {"id": prompt.id, "prompt": prompt.text}
    if prompt.image is not None:
        row["image"] = os.path.relpath(prompt.image, folder)
    row |= prompt.columns
    for kind in ("semantic", "quality"):
        row[f"{kind}_questions"] = [question_row(asked) for asked in prompt.questions if asked.kind == kind]
    return row


def _prompts(rows: Iterable[tuple[str, dict[str, Any]]], columns: Mapping[str, str], folder: Path) -> list[Prompt]:
    prompts = []
    first: dict[str, str] = {}
    contents: Counter[str] = Counter()
    for place, row in rows:
        try:
            content = json.dumps(row, sort_keys=True, ensure_ascii=False, default=_written)
            content.encode()
        except TypeError as error:
            raise ValueError(f"{place}: {error}: leave that column out") from None
        except UnicodeEncodeError:
            raise ValueError(f"{place}: holds half of a surrogate pair, which is no text: write it whole") from None
        prompt = _prompt(place, row, columns, folder, default_id=_content_id(content, contents[content]))
        contents[content] += 1
        if prompt.id in first:
            raise ValueError(f"{place}: id {prompt.id!r} is that of {first[prompt.id]} already: make ids unique")
        first[prompt.id] = place
        prompts.append(prompt)
    return prompts


def _content_id(content: str, occurrence: int) -> str:
    digest = hashlib.blake2b(content.encode(), digest_size=6).hexdigest()
    return f"{digest}-{occurrence}" if occurrence else digest


def _written(value: Any) -> str:
    """What Parquet and datasets hold beside JSON's values; equal for equal values. Raises TypeError for the rest."""
    if isinstance(value, bytes | datetime.date | datetime.time | datetime.timedelta | decimal.Decimal):
        return repr(value) if isinstance(value, bytes) else str(value)
    raise TypeError(f"holds a {type(value).__name__}, which is no text, number or list")


def _prompt(place: str, row: dict[str, Any], columns: Mapping[str, str], folder: Path, default_id: str) -> Prompt:
    field = {name: row.get(columns.get(name, name)) for name in FIELDS}
    others = {key: value for key, value in row.items() if key not in {columns.get(name, name) for name in FIELDS}}
    name = columns.get("prompt", "prompt")
    if name == "prompt" and name not in row and "question" in row:
        name = "question"
    if name not in row:
        there = f" (it has {', '.join(map(repr, row))})" if row else ""
        raise ValueError(f"{place}: lacks {name!r}{there}: add it, or name its column by `columns`")
    return Prompt(
        id=_id(place, field["id"], default_id),
        text=_text(place, name, row[name]),
        questions=read_questions(place, field["semantic_questions"], field["quality_questions"]),
        image=_image(place, field["image"], folder),
        columns=others,
        place=place,
    )


def _id(place: str, value: Any, default: str) -> str:
    if value is None or value == "":
        return default
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{place}: 'id' is {_short(value)}: give a text or a number")
    return str(value)


def _text(place: str, name: str, value: Any) -> str:
    """The text of a prompt: itself, or that of its one message."""
    text = _message(place, name, value) if isinstance(value, list) and value else value
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{place}: {name!r} is {_short(value)}: give a text that says something")
    return text


def _message(place: str, name: str, messages: list[Any]) -> Any:
    """The text of a chat that is one message of the user; anything else would be read without its other parts."""
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    if roles != ["user"]:
        said = ", ".join(str(role or "no role") for role in roles[:5])
        raise ValueError(
            f"{place}: {name!r} is a chat of {len(roles)} message(s) ({said}), of which only a single one by the user "
            "is read: write the prompt as one text"
        )
    content = messages[0].get("content")
    if not isinstance(content, list):
        return content
    if len(content) != 1 or not isinstance(content[0], dict) or content[0].get("type") != "text":
        raise ValueError(
            f"{place}: the message in {name!r} has other parts than one text: write the prompt as one text, and the "
            "path of a picture under 'image'"
        )
    return content[0].get("text")


def _image(place: str, value: Any, folder: Path) -> str | None:
    """The path of a picture that is there."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise ValueError(f"{place}: 'image' is {_short(value)}: save the picture as a file and give its path")
    if _URL.match(value):
        raise ValueError(f"{place}: 'image' is the URL {_short(value)}: download the picture and give its path")
    file = folder / value
    try:
        there = file.is_file()
    except OSError:  # Too long to be a name: a picture in base64, say.
        raise ValueError(f"{place}: 'image' is {_short(value)}, which is no path: give that of a picture") from None
    if not there:
        raise FileNotFoundError(f"{place}: there is no picture {file}: paths start at the prompt file's folder")
    return str(file)


def _short(value: Any) -> str:
    """A value for a message."""
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:60]}... ({type(value).__name__}, {len(said)} characters)"
