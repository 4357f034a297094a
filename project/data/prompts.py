"""Prompt files -> `Prompt`: JSONL in the published DVReward form, plain text, or a Hugging Face dataset.

A JSONL row is an object with `prompt` and, optionally, `semantic_questions` and `quality_questions` (lists of
`{"question", "is_valid", "tag", "depends_on"}`), `id` and `image`; every other key lands in `Prompt.columns`.
Questions with `is_valid: false` are dropped; `question_type` is written but not read, as the list says it already.
`depends_on` holds positions, from 0, in the list of all questions of the row (semantic first, then quality).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from project.trajectory import Prompt, Question

_SLICE = re.compile(r"(?P<path>.+)\[(?P<bounds>-?\d*:-?\d*(:-?\d*)?)\]")
FIELDS = ("prompt", "id", "image", "semantic_questions", "quality_questions")


def read_prompts(path: str | Path, columns: Mapping[str, str] | None = None) -> list[Prompt]:
    """All prompts of a `.jsonl` file, a `.txt` file (one prompt a line) or a dataset folder or id.

    A slice at the end takes some of them, in Python's own way: `eval.jsonl[::4]` every fourth, `eval.jsonl[:100]`.

    `columns` renames: field of `FIELDS` -> the name it has in the file, e.g. {"prompt": "caption"}. A prompt
    without an id gets a hash of its row's content, so ids do not depend on the order of the file.

    Raises FileNotFoundError for a missing file, ValueError (file:line and remedy) for unusable content.
    """
    renamed = dict(columns or {})
    if unknown := sorted(set(renamed) - set(FIELDS)):
        raise ValueError(f"columns: unknown field {unknown[0]!r}: choose of {', '.join(FIELDS)}")
    path, some = _sliced(path)
    file = Path(path)
    if file.is_dir() or (not file.exists() and not file.suffix and str(path).count("/") == 1):
        rows = _dataset_rows(str(path))
    elif not file.exists():
        raise FileNotFoundError(f"there is no prompt file {file}: check the path (now in {Path.cwd()})")
    elif file.suffix == ".jsonl":
        rows = _json_rows(file)
    elif file.suffix == ".txt":
        rows = ((place, {renamed.get("prompt", "prompt"): line}) for place, line in _lines(file))
    else:
        raise ValueError(f"{file}: cannot read {file.suffix or 'a file without extension'}: give .jsonl or .txt")
    prompts = _prompts(rows, renamed, file.parent)
    if not prompts:
        raise ValueError(f"{path}: holds no prompt: write one a line")
    if not prompts[some]:
        raise ValueError(f"{path} holds {len(prompts)} prompt(s), none of them in the slice: take a larger one")
    return prompts[some]


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
        row[f"{kind}_questions"] = [_question_row(asked) for asked in prompt.questions if asked.kind == kind]
    return row


def _question_row(asked: Question) -> dict[str, Any]:
    row = {"question_type": asked.kind, "question": asked.text, "is_valid": True, "tag": asked.tag}
    return row | ({"depends_on": list(asked.depends_on)} if asked.depends_on else {})


def _prompts(rows: Iterable[tuple[str, dict[str, Any]]], columns: Mapping[str, str], folder: Path) -> list[Prompt]:
    prompts = []
    first: dict[str, str] = {}
    contents: Counter[str] = Counter()
    for place, row in rows:
        content = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
        try:
            content.encode()
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


def _prompt(place: str, row: dict[str, Any], columns: Mapping[str, str], folder: Path, default_id: str) -> Prompt:
    field = {name: row.get(columns.get(name, name)) for name in FIELDS}
    others = {key: value for key, value in row.items() if key not in {columns.get(name, name) for name in FIELDS}}
    text = field["prompt"]
    if not isinstance(text, str) or not text.strip():
        name = columns.get("prompt", "prompt")
        raise ValueError(f"{place}: lacks {name!r} (a text): add it, or name its column by `columns`")
    image = field["image"]
    if image is not None:
        if not isinstance(image, str):
            raise ValueError(f"{place}: 'image' is {type(image).__name__}: give the path of a picture")
        image = str(folder / image)
        if not Path(image).is_file():
            raise FileNotFoundError(f"{place}: there is no picture {image}: paths start at the prompt file's folder")
    return Prompt(
        id=default_id if field["id"] is None else str(field["id"]),
        text=text,
        questions=_questions(place, field["semantic_questions"] or [], field["quality_questions"] or []),
        image=image,
        columns=others,
        place=place,
    )


def _questions(place: str, semantic: Any, quality: Any) -> tuple[Question, ...]:
    """The valid questions, semantic first, their `depends_on` moved to positions among the valid ones."""
    if not isinstance(semantic, list) or not isinstance(quality, list):
        raise ValueError(f"{place}: questions stand in a list: give [{{'question': ...}}, ...]")
    kinds = _kinds(len(semantic), len(quality))
    entries = semantic + quality
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("question"), str) or not entry["question"].strip():
            raise ValueError(f"{place}: {entry!r} is no question: give {{'question': TEXT, 'tag': ...}}")
    valid = [position for position, entry in enumerate(entries) if entry.get("is_valid", True)]
    moved = {old: new for new, old in enumerate(valid)}
    questions = []
    for old in valid:
        depends_on = entries[old].get("depends_on") or []
        if not isinstance(depends_on, list) or any(not isinstance(d, int) for d in depends_on):
            raise ValueError(f"{place}: 'depends_on' is {depends_on!r}: give a list of positions from 0")
        if wrong := [d for d in depends_on if not 0 <= d < len(entries) or d == old]:
            raise ValueError(f"{place}: question {old} depends on {wrong[0]}: give another's, 0 to {len(entries) - 1}")
        questions.append(
            Question(
                text=entries[old]["question"],
                kind=kinds[old],
                tag=str(entries[old].get("tag") or ""),
                depends_on=tuple(moved[d] for d in depends_on if d in moved),
            )
        )
    return tuple(questions)


def _kinds(semantic: int, quality: int) -> list[Literal["semantic", "quality"]]:
    return [*(["semantic"] * semantic), *(["quality"] * quality)]  # type: ignore[list-item]


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """("file:line", line) of every line that is not blank."""
    for number, raw in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}:{number}: is not UTF-8 text (byte {error.start}): convert the file") from error
        if line:
            yield f"{file}:{number}", line


def _json_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, line in _lines(file):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: is no JSON ({error.msg}, column {error.colno}): one object a line") from error
        if not isinstance(row, dict):
            raise ValueError(f'{place}: is a JSON {type(row).__name__}, no object: give {{"prompt": ...}}')
        yield place, row


def _dataset_rows(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a dataset folder (`save_to_disk`) or of the train split of a dataset id."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"{name} is no .jsonl or .txt file, and reading a dataset needs `pip install datasets`"
        ) from error
    dataset = datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name, split="train")
    for position, row in enumerate(dataset):
        yield f"{name}[{position}]", dict(row)
