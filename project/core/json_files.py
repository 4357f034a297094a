"""JSON as people write it to files: what is wrong is said with file and line.

A byte order mark at the start is no part of the text. Lines end at \\n, \\r\\n or \\r alone; the other line ends of
Unicode (U+2028, NEL) may stand inside a text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from project.core.atomic_files import writing
from project.core.git_lfs import LFS_REMEDY, is_lfs_pointer

AGAIN = "copy or download it again"
DEEPEST = 100
"""Levels of brackets; nobody's data have so many, and much deeper ones end the interpreter."""


def read_object(file: Path, wanted_by: str = "a checkpoint folder") -> dict[str, Any]:
    """The keys and values of a JSON file.

    Raises FileNotFoundError without it (`wanted_by` says what holds one), and ValueError if it is no JSON object.
    """
    content = _content(file, wanted_by)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}, not an object of keys and values: {AGAIN}")
    return content


def read_list(file: Path, wanted_by: str) -> list[tuple[str, dict[str, Any]]]:
    """("file[position]", row) of a JSON file with a list of objects; positions count from 0.

    Raises FileNotFoundError without it (`wanted_by` says what holds one), and ValueError if it is no such list.
    """
    content = _content(file, wanted_by)
    if not isinstance(content, list):
        raise ValueError(f"{file}: holds a {type(content).__name__}, not a list of objects: {AGAIN}")
    for position, row in enumerate(content):
        if not isinstance(row, dict):
            raise ValueError(f"{file}[{position}]: is a {type(row).__name__}, no object of keys and values: {AGAIN}")
    return [(f"{file}[{position}]", row) for position, row in enumerate(content)]


def _content(file: Path, wanted_by: str) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {wanted_by} holds one")
    if is_lfs_pointer(file):
        raise ValueError(f"{file} is a Git LFS pointer, not the file itself: {LFS_REMEDY}")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: is not UTF-8 text: {AGAIN}") from None
    try:
        return json_value(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not valid JSON ({error.msg}): {AGAIN}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}: {AGAIN}") from None


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """("file:line", line) of every line that is not blank. Raises ValueError for what is not UTF-8 text, and for what
    Git LFS left in place of the file."""
    if is_lfs_pointer(file):
        raise ValueError(f"{file} is a Git LFS pointer, not the file itself: {LFS_REMEDY}")
    for number, raw in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}:{number}: is not UTF-8 text (byte {error.start}): convert the file") from None
        if line:
            yield f"{file}:{number}", line


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", row) of a file with one JSON object a line. Raises ValueError (file:line) for anything else."""
    for place, line in read_lines(file):
        try:
            row = json_value(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: is no JSON ({error.msg}, column {error.colno}): one object a line") from None
        except ValueError as error:
            raise ValueError(f"{place}: {error}: leave it out, or write it as a text") from None
        if not isinstance(row, dict):
            raise ValueError(f'{place}: is a JSON {type(row).__name__}, no object: give {{"key": value, ...}}')
        yield place, row


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Adds a row at the end of a file, which is made with its folder if it is not there.

    Raises OSError, writing the file, if it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with writing(file), file.open("ab") as stream:
        stream.write(f"{json.dumps(row)}\n".encode())


def json_value(text: str) -> Any:
    """What a JSON text says.

    Raises json.JSONDecodeError if it is none, and ValueError for what JSON allows and nobody can work with: more than
    `DEEPEST` levels of brackets, and integers of thousands of digits.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError(f"nests brackets more than {DEEPEST} levels deep") from None
    except ValueError:  # Python's bound on the digits of an integer.
        raise ValueError("holds an integer of thousands of digits") from None
    if _deeper(value, DEEPEST):
        raise ValueError(f"nests brackets more than {DEEPEST} levels deep")
    return value


def section(content: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    """The object under a key, empty if there is none. Raises ValueError if something else stands there."""
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{file}: {key!r} is {value!r}, not an object of keys and values: {AGAIN}")
    return value


def positive(content: dict[str, Any], key: str, file: Path) -> Any:
    """The number under a key. Raises ValueError if it is missing, or no number above 0 that 64 bits hold."""
    if key not in content:
        raise ValueError(f"{file}: lacks the key {key!r}: {AGAIN}")
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**63:
        raise ValueError(f"{file}: {key!r} is {value!r}, not a number above 0: {AGAIN}")
    return value


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested more than `levels` deep."""
    layer = [value] if isinstance(value, list | dict) else []
    for _ in range(levels):
        inner = (part for outer in layer for part in (outer.values() if isinstance(outer, dict) else outer))
        layer = [part for part in inner if isinstance(part, list | dict)]
    return bool(layer)
