"""Configuration files of a checkpoint: what is wrong is said with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

AGAIN = "copy or download it again"


def read_object(file: Path, wanted_by: str = "a checkpoint folder") -> dict[str, Any]:
    """The keys and values of a JSON file.

    Raises FileNotFoundError without it (`wanted_by` says what holds one), and ValueError if it is no JSON object.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {wanted_by} holds one")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not valid JSON ({error.msg}): {AGAIN}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file}: is not UTF-8 text: {AGAIN}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds a {type(content).__name__}, not an object of keys and values: {AGAIN}")
    return content


def section(content: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    """The object under a key, empty if there is none. Raises ValueError if something else stands there."""
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{file}: {key!r} is {value!r}, not an object of keys and values: {AGAIN}")
    return value


def positive(content: dict[str, Any], key: str, file: Path) -> Any:
    """The number under a key. Raises ValueError if it is missing or not above 0."""
    if key not in content:
        raise ValueError(f"{file}: lacks the key {key!r}: {AGAIN}")
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{file}: {key!r} is {value!r}, not a number above 0: {AGAIN}")
    return value
