"""The YAML files of a command line: what is wrong with them, what they say together, and where a thing stands."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from project.core.moved_paths import moved
from project.core.nearest import nearest

Way = tuple[str | int, ...]
"""Keys and places in lists, from the top of a tree to a node."""
INHERITED = ""
"""In the place of a class path: an overlay gives arguments to a class that an earlier file names."""


def files_in(argv: Sequence[str]) -> list[Path]:
    """The files that `--config` names on a command line, in order."""
    files = []
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if argument in ("--config", "-c"):
            files.append(Path(following))
        elif argument.startswith("--config="):
            files.append(Path(argument.partition("=")[2]))
    return files


def unreadable(files: Sequence[Path]) -> str | None:
    """The message for the first file that is missing, is no YAML mapping, says a thing twice or names a class by a
    path that it has no more; None if all is well.
    """
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
        new = moved(node.value)
        return (node.start_mark.line + 1, f"{node.value} is now {new}: give the new name") if new else None
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


def merged(files: Sequence[Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What the files say together, later ones on top, and then dotted options: comments and layout do not count.

    Mappings are merged key by key; anything else, lists too, takes the place of what was there.
    """
    from jsonargparse import get_loader

    load = get_loader("yaml")
    whole: dict[str, Any] = {}
    for file in files:
        whole = _over(whole, load(file.read_text(encoding="utf-8")))
    for key, value in overrides.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        whole = _over(whole, value)
    return whole


def _over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: _over(below.get(key), value) for key, value in above.items()}


def unknown_empty_key(files: Sequence[Path], parsed: Any) -> str | None:
    """The message for the first key that holds nothing and that `parsed`, made from the files, does not have.

    A parser refuses unknown keys by their values, and takes one without any in silence.
    """
    classes: dict[Way, str] = {}
    for file in files:
        if found := _without_values(yaml.compose(file.read_text(encoding="utf-8")), parsed, classes):
            line, problem = found
            return f"{file}:{line}: {problem}"
    return None


def _without_values(
    node: Any, parsed: Any, classes: dict[Way, str], path: Way = (), owner: str | None = None
) -> tuple[int, str] | None:
    """(line, message) of the first such key in a YAML tree, whose values are arguments of the class `owner`.

    `classes` are those that the files named so far.
    """
    if isinstance(node, yaml.SequenceNode):
        same = isinstance(parsed, list) and len(parsed) == len(node.value)
        pairs = zip(node.value, parsed, strict=True) if same else ()
        found = (_without_values(item, value, classes, (*path, n)) for n, (item, value) in enumerate(pairs))
        return next(filter(None, found), None)
    if not isinstance(node, yaml.MappingNode) or not isinstance(parsed, dict | Namespace):
        return None
    there = parsed if isinstance(parsed, dict) else vars(parsed)
    entries = {key.value: value for key, value in node.value}
    if isinstance(named := entries.get("class_path"), yaml.ScalarNode):
        classes[path] = named.value
    made = there.get("class_path", "")
    if path in classes and classes[path].rpartition(".")[2] != made.rpartition(".")[2]:
        return None  # a later file, or an option, put another class in its place
    for key, value in node.value:
        name = key.value
        if name in there:
            inside = made if name == "init_args" else None
            if flaw := _without_values(value, there[name], classes, (*path, name), inside):
                return flaw
        elif _holds_nothing(value) and name not in ("init_args", "dict_kwargs"):
            where = f"of {owner}" if owner else f"in {str(path[-1])!r}" if path else "at the top level"
            return key.start_mark.line + 1, f"unknown key {name!r} {where}: {nearest(name, there)}"
    return None


def _holds_nothing(node: Any) -> bool:
    return isinstance(node, yaml.MappingNode) and all(_holds_nothing(value) for _, value in node.value)


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
