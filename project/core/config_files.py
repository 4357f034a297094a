"""The YAML files of a command line: what is wrong with them as files, and where in them a thing stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

INHERITED = ""
"""In the place of a class path: an overlay gives arguments to a class that an earlier file names."""


def unreadable(files: Sequence[Path]) -> str | None:
    """The message for the first file that is missing, is no YAML mapping or says a thing twice; None if all is well."""
    for file in files:
        if not file.is_file():
            return f"there is no configuration file {file}: check --config (now in {Path.cwd()})"
        try:
            tree = yaml.compose(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            return f"{file}: is not UTF-8 text: convert the file"
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else "?"
            return f"{file}:{line}: is no YAML ({error.problem or error.context}): check indentation, brackets, quotes"
        if not isinstance(tree, yaml.MappingNode):
            return f"{file}: holds no configuration: write `key: value` lines"
        if flaw := _flaw(tree):
            line, problem = flaw
            return f"{file}:{line}: {problem}"
    return None


def _flaw(node: Any) -> tuple[int, str] | None:
    """(line, message) of the first entry that a YAML loader takes in silence, or stumbles over without a word."""
    if isinstance(node, yaml.SequenceNode):
        return next((flaw for item in node.value if (flaw := _flaw(item))), None)
    if not isinstance(node, yaml.MappingNode):
        return None
    seen: set[str] = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            return line, f"key {key.value!r} stands here a second time: keep one"
        if key.value == "init_args" and not isinstance(value, yaml.MappingNode):
            return line, "'init_args' holds no arguments: write `name: value` lines under it or remove it"
        seen.add(key.value)
        if flaw := _flaw(value):
            return flaw
    return None


def place_of(
    files: Sequence[Path], name: str, *, owner: str | None = None, group: str | None = None, value: str | None = None
) -> str:
    """Gives "file:line: " of a key or of a class path called `name`, "" if it stands in none of the files.

    A key stands among the arguments of the class `owner`, or under the key `group`; of several, the one with `value`.
    """
    other = ""
    for file in reversed(files):
        for line, key, text, parent, class_path in _entries(yaml.compose(file.read_text(encoding="utf-8"))):
            is_class = text == name and key in ("class_path", parent)
            own = class_path == owner or (class_path == INHERITED and owner is not None)
            is_key = key == name and own and (group is None or parent == group)
            if is_class or (is_key and value in (None, text)):
                return f"{file}:{line}: "
            if is_key and class_path == owner and not other:
                other = f"{file}:{line}: "
    # A word stands in a file as it was read; one that does not came from the command line.
    return "" if value is not None and re.fullmatch(r"[\w.+-]+", value) else other


def _entries(
    node: Any, parent: str = "", class_path: str | None = None
) -> Iterator[tuple[int, str, str, str, str | None]]:
    """(line, key, scalar value or "", key above, class whose arguments these are) of every entry of a YAML tree."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if isinstance(item, yaml.ScalarNode):
                yield item.start_mark.line + 1, parent, item.value, parent, class_path
            else:
                yield from _entries(item, parent, class_path)
    elif isinstance(node, yaml.MappingNode):
        entries = {key.value: value for key, value in node.value}
        named = entries.get("class_path")
        own = named.value if isinstance(named, yaml.ScalarNode) else None
        for key, value in node.value:
            text = value.value if isinstance(value, yaml.ScalarNode) else ""
            yield key.start_mark.line + 1, key.value, text, parent, class_path
            inside = (own or INHERITED) if key.value == "init_args" else None
            yield from _entries(value, key.value, inside)
