"""From a parser's nested complaint to one message: what is wrong, in which file and line, and what to do.

jsonargparse reports a typo deep in a configuration as a tree: every alternative of every union on the way, and the
whole value. `explain` finds the one leaf that tells the cause, the place in the YAML file, and a near name.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but"
    r"|Subclass types expect one of|a class path \(str\)|a dict with|a dict without|Not a valid subclass"
)
KEY = re.compile(r"Parser key \"([^\"]+)\":\s*(.*)")
CLASS_PATH = re.compile(r"Problem with given class_path '([^']+)':\s*(.*)")


class UsageError(Exception):
    """The command line or a configuration file is wrong; the message is ready to be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A leaf of the complaint, with the keys and classes on the way to it."""

    text: str
    keys: tuple[str, ...]
    class_paths: tuple[str, ...]

    @property
    def owner(self) -> str | None:
        """Class path of the innermost object that the cause lies in."""
        return self.class_paths[-1] if self.class_paths else None


def explain(message: str, files: Sequence[Path] = (), options: Iterable[str] = ()) -> str:
    """One message for jsonargparse's `message`.

    `files` are the YAML files of the command line (later ones win), `options` its dotted options without dashes
    (`trainer.max_epochs`), to find what was meant.
    """
    options = list(options)
    causes = list(_causes(message))
    if not causes:
        return message
    deepest = max(causes, key=lambda cause: (len(cause.class_paths), not cause.text.startswith("Expected")))
    same = [c.text for c in causes if (c.keys, c.class_paths) == (deepest.keys, deepest.class_paths)]
    return (
        _unknown_key(deepest, files, options) or _wrong_class(deepest, files) or _other(deepest, same, message, files)
    )


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


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy: the near name, or all of them."""
    known = sorted(set(known))
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f"did you mean {near[0]!r}?"
    if not known:
        return "it takes none, remove it"
    return f"choose of {', '.join(known)}" if len(known) <= 40 else "see --help for what there is"


def _causes(message: str) -> Iterator[Cause]:
    """The leaves of the complaint; its tree is in the indentation."""
    stack: list[tuple[int, str, str]] = []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ").strip()
        indent = len(line) - len(line.lstrip())
        while stack and stack[-1][0] >= indent and text:
            stack.pop()
        if not text or NOISE.match(text):
            continue
        for kind, pattern in (("key", KEY), ("class", CLASS_PATH)):
            if found := pattern.match(text):
                # A bullet's children are indented from its text, so its dash does not matter.
                stack.append((indent, kind, found[1]))
                text = found[2]
        if text and not NOISE.match(text):
            yield Cause(
                text=text,
                keys=tuple(name for _, kind, name in stack if kind == "key"),
                class_paths=tuple(name for _, kind, name in stack if kind == "class"),
            )


def _unknown_key(cause: Cause, files: Sequence[Path], options: list[str]) -> str | None:
    if found := re.match(r"unrecognized arguments: (.+)", cause.text):
        wrong = found[1].split()[0]
        if not wrong.startswith("-"):
            return f"unknown argument {wrong!r}: options start with --"
        name = wrong.partition("=")[0].lstrip("-")
        return f"unknown option --{name}: {nearest(name, options).replace(chr(39), '')}"
    found = re.search(r"(?:(Group|Subcommand) '([^']+)' does not accept option|^Option) '([^']+)'", cause.text)
    if not found:
        return None
    group, key = found[2] if found[1] == "Group" else None, found[3]
    if not cause.owner and not group:
        # The subcommand names the whole path: its first part may be known.
        top, _, rest = key.partition(".")
        group, key = (top, rest) if rest and any(o.startswith(f"{top}.") for o in options) else (None, top)
    if cause.owner:
        known, of = _parameters(cause.owner), f"of {cause.owner}"
    elif group:
        known, of = [o.removeprefix(f"{group}.") for o in options if o.startswith(f"{group}.")], f"in {group!r}"
    else:
        known, of = [o.partition(".")[0] for o in options], "at the top level"
    place = _place(files, key, owner=cause.owner, group=group)
    return f"{place}unknown key {key!r} {of}: {nearest(key, known)}"


def _wrong_class(cause: Cause, files: Sequence[Path]) -> str | None:
    if found := re.match(r"Import path (\S+) does not correspond to a subclass of (\S+)", cause.text):
        return f"{_place(files, found[1])}{found[1]} is no {found[2]}: name a class that is"
    if found := re.match(r"Expected a dot import path string: (\S+)", cause.text):
        return f"{_place(files, found[1])}{found[1]!r} is no class path: give package.module.Class"
    path = cause.owner or ""
    if not re.match(r"module '.+' has no attribute|No module named|cannot import", cause.text):
        return None
    if not path:
        return f"{cause.text}: give the full path of a class, package.module.Class"
    place = _place(files, path)
    module, _, name = path.rpartition(".")
    missing = re.match(r"No module named '([^']+)'", cause.text)
    if missing and not path.startswith(missing[1]):
        return f"{place}{path} cannot be imported: {cause.text} (pip install {missing[1].split('.')[0]}?)"
    try:
        known = [n for n, value in vars(importlib.import_module(module)).items() if inspect.isclass(value)]
        wrong = name
    except ImportError:
        parent, _, wrong = module.rpartition(".")
        module, known = parent or wrong, _modules(parent)
    return f"{place}there is no {path} ({cause.text}): {nearest(wrong, known)}"


def _other(cause: Cause, same: list[str], message: str, files: Sequence[Path]) -> str:
    where = ".".join(cause.keys)
    if found := re.match(r"the following arguments are required: (.+)", cause.text):
        names = ", ".join(repr(name.strip().partition(".")[2] or name.strip()) for name in found[1].split(","))
        place = _place(files, cause.owner) if cause.owner else (f"{files[-1]}: " if files else "")
        return f"{place}{cause.owner or 'the configuration'} lacks {names}: add it"
    wanted = [w[1] for text in same if (w := re.match(r"Expected an? (.+?)(?:\. Got value: .*)?$", text))]
    if wanted:
        got = re.search(r"Got value: (.+)", cause.text) or re.search(r"^\s*Given value: (.+)$", message, re.MULTILINE)
        value = got[1] if got else ""
        place = _place(files, cause.keys[-1].rpartition(".")[2] if cause.keys else "", owner=cause.owner, value=value)
        return f"{place}{where} is {value!r}: give {' or '.join(map(_pretty, wanted))}"
    return f"{where}: {cause.text}" if where else cause.text


def _pretty(kind: str) -> str:
    """ "<class 'int'>" -> "int", "typing.Literal['a', 'b']" -> "one of 'a', 'b'"."""
    kind = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", kind)
    return re.sub(r"typing\.Literal\[(.+)\]", r"one of \1", kind)


def _parameters(class_path: str) -> list[str]:
    """Names of the arguments of a class, those that it passes on to its parents included."""
    module, _, name = class_path.rpartition(".")
    try:
        owner = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    names: list[str] = []
    for base in inspect.getmro(owner) if inspect.isclass(owner) else (owner,):
        try:
            parameters = inspect.signature(base).parameters.values()
        except (TypeError, ValueError):
            break
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def _modules(package: str) -> list[str]:
    """Names of the modules in a package; of all top-level modules if it is empty."""
    if not package:
        return [module.name for module in pkgutil.iter_modules()]
    try:
        return [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    except (ImportError, AttributeError):
        return []


def _place(
    files: Sequence[Path], name: str, *, owner: str | None = None, group: str | None = None, value: str | None = None
) -> str:
    """ "file:line: " of a key (under the arguments of `owner`, or under the key `group`) or of a class path."""
    for file in reversed(files):
        for line, key, text, parent, class_path in _entries(yaml.compose(file.read_text(encoding="utf-8"))):
            is_value = text == name and key in ("class_path", parent)
            is_key = key == name and class_path == owner and (group is None or parent == group)
            if is_value or (is_key and value in (None, text, repr(text))) or (is_key and value and text == ""):
                return f"{file}:{line}: "
    return ""


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
            inside = own if key.value == "init_args" else None
            yield from _entries(value, key.value, inside)
