"""From a parser's nested complaint to one message: what is wrong, in which file and line, and what to do.

jsonargparse reports a typo deep in a configuration as a tree: every alternative of every union on the way, and the
whole value. `explain` finds the one leaf that tells the cause, the place in the YAML file, and a near name.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from project.core.config_files import place_of
from project.core.moved_paths import moved
from project.core.nearest import nearest

NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but"
    r"|Subclass types expect one of|a class path \(str\)|a dict with|a dict without|Not a valid subclass"
)
KEY = re.compile(r"Parser key \"([^\"]+)\":\s*(.*)")
CALLABLE = re.compile(r"Type .* expects a function or a callable class: (.+)\. Got value: .*class_path='([^']+)'")
CLASSLESS = {"lightning.LightningModule": "model", "lightning.LightningDataModule": "data"}
"""What stands for a class that no file names."""
SECRETS = ("api_key",)
"""Arguments whose values no message shows."""
CLASS_PATH = re.compile(r"Problem with given class_path '([^']+)':\s*(.*)")


class UsageError(ValueError):
    """The command line or a configuration file is wrong; the message is ready to be shown."""


class WrongReturn(ValueError):
    """What a class or function returned cannot be used; the message says where that one is, and what it must return."""


def place_of_code(function: Any) -> str:
    """ " at FILE:LINE" of a function or method, for messages; empty where nobody knows."""
    try:
        return f" at {inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"
    except (TypeError, OSError):
        return ""


class ScoringFailed(RuntimeError):
    """Pictures cannot be scored any longer, because a judge or a reward failed; the message says which, and why.

    Training ends, saved as it was before the update at work.

    `agreed`: every rank raises it at the same place, so that they can save together.
    """

    def __init__(self, message: str, agreed: bool = False) -> None:
        super().__init__(message)
        self.agreed = agreed


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
    if nothing := re.search(r"NestedArg\(key='([^']+)', val=None\)", message):
        # jsonargparse cannot take away a field of a group of settings by an option.
        return f"{nothing[1]}: null cannot be given as an option here, write it into a YAML file and add --config FILE"
    causes = list(_causes(message))
    if not causes:
        return message
    deepest = max(causes, key=lambda cause: (len(cause.class_paths), not cause.text.startswith("Expected")))
    same = [c.text for c in causes if (c.keys, c.class_paths) == (deepest.keys, deepest.class_paths)]
    return (
        _unknown_key(deepest, files, options)
        or _wrong_class(deepest, same, message, files)
        or _other(deepest, same, message, files)
    )


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
            keys = tuple(name for _, kind, name in stack if kind == "key")
            class_paths = tuple(name for _, kind, name in stack if kind == "class")
            if found := CALLABLE.match(text):
                text, class_paths = found[1], (*class_paths, found[2])
            yield Cause(text=text, keys=keys, class_paths=class_paths)


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
    if part := CLASSLESS.get(cause.owner or ""):
        return f"{part} has arguments but no class: give the file with {part}.class_path before this one"
    if cause.owner and group:
        known, of = _fields(cause.owner, group), f"in {group!r} of {cause.owner}"
    elif cause.owner:
        known, of = _parameters(cause.owner), f"of {cause.owner}"
    elif group:
        known, of = [o.removeprefix(f"{group}.") for o in options if o.startswith(f"{group}.")], f"in {group!r}"
    else:
        known, of = [o.partition(".")[0] for o in options], "at the top level"
    place = place_of(files, key, owner=None if group else cause.owner, group=group)
    if not place and cause.keys:  # no file names the class of these arguments
        place = place_of(files, key, group=cause.keys[-1].rpartition(".")[2])
    return f"{place}unknown key {key!r} {of}: {nearest(key, known)}"


def _wrong_class(cause: Cause, same: list[str], message: str, files: Sequence[Path]) -> str | None:
    # Of a class path that is followed by options of the class, jsonargparse tells the name elsewhere.
    pattern = re.compile(r"Import path (?:(\S+) )?does not correspond to a subclass of (\S+)")
    if found := pattern.match(cause.text):
        named = found if found[1] else re.search(r"^\s*Given value: (\S+)$", message, re.MULTILINE)
        given = named[1] if named else "the class"
        kinds = dict.fromkeys(other[2] for text in same if (other := pattern.match(text)))
        return f"{place_of(files, given)}{given} is no {' or '.join(kinds)}: name a class that is"
    if found := re.match(r"Expected a dot import path string: (\S+)", cause.text):
        return f"{place_of(files, found[1])}{found[1]!r} is no class path: give package.module.Class"
    path = cause.owner or ""
    if found := re.match(r"Requirement '([^']+)' not met", cause.text):
        return f"{place_of(files, path)}{path or 'a class'} needs {found[1]}: pip install '{found[1]}'"
    if not re.match(r"module '.+' has no attribute|No module named|cannot import", cause.text):
        return None
    if not path:
        return f"{cause.text}: give the full path of a class, package.module.Class"
    place = place_of(files, path)
    if new := moved(path):
        return f"{place}{path} is now {new}: give the new name"
    module, _, name = path.rpartition(".")
    missing = re.match(r"No module named '([^']+)'", cause.text)
    if missing and not path.startswith(missing[1]):
        return f"{place}{path} cannot be imported: {cause.text} (pip install {missing[1].split('.')[0]}?)"
    try:
        there = importlib.import_module(module)
        known = [v.__name__ for v in vars(there).values() if inspect.isclass(v) and v.__module__.startswith(module)]
        known += set(dir(there)) - set(vars(there))  # classes that a room finds when they are asked for
        wrong = name
    except ImportError:
        parent, _, wrong = module.rpartition(".")
        module, known = parent or wrong, _modules(parent)
    return f"{place}there is no {path} ({cause.text}): {nearest(wrong, known)}"


def _other(cause: Cause, same: list[str], message: str, files: Sequence[Path]) -> str:
    where = ".".join(cause.keys)
    if found := re.search(r"Parameter '(\w+)' from '([\w.]+)\.__init__' does not specify a type", cause.text):
        place = place_of(files, found[2])
        return f"{place}argument {found[1]!r} of {found[2]} has no type: give it one, such as `{found[1]}: float`"
    if found := re.match(r"the following arguments are required: (.+)", cause.text):
        lacking = [name.strip() for name in found[1].split(",")]
        if not files and not cause.owner:
            return f"{' and '.join(f'--{name}' for name in lacking)} must be given: see --help"
        names = ", ".join(repr(name.partition(".")[2] or name) for name in lacking)
        place = place_of(files, cause.owner) if cause.owner else (f"{files[-1]}: " if files else "")
        return f"{place}{cause.owner or 'the configuration'} lacks {names}: add it"
    wanted = [w[1] for text in same if (w := re.match(r"Expected an? (.+?)(?:\. Got value: .*)?$", text))]
    if wanted:
        got = re.search(r"Got value: (.+)", cause.text) or re.search(r"^\s*Given value: (.+)$", message, re.MULTILINE)
        value = got[1] if got else ""
        above, _, name = (cause.keys[-1] if cause.keys else "").rpartition(".")
        group = above.rpartition(".")[2] or None
        place = place_of(files, name, owner=None if group else cause.owner, group=group, value=value)
        if name in SECRETS:
            return f"{place}{where} is no {' or '.join(map(_pretty, wanted))}: write it in quotation marks"
        return f"{place}{where} is {value!r}: give {' or '.join(map(_pretty, wanted))}"
    return f"{where}: {cause.text}" if where else cause.text


def _pretty(kind: str) -> str:
    """Turns "<class 'int'>" into "int", "typing.Literal['a', 'b']" into "one of 'a', 'b'"."""
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


def _fields(class_path: str, argument: str) -> list[str]:
    """Names of the fields of a dataclass that is an argument of a class."""
    module, _, name = class_path.rpartition(".")
    hint = typing.get_type_hints(getattr(importlib.import_module(module), name).__init__).get(argument)
    kinds = [hint, *typing.get_args(hint)]
    return [field.name for kind in kinds if dataclasses.is_dataclass(kind) for field in dataclasses.fields(kind)]


def _modules(package: str) -> list[str]:
    """Names of the modules in a package; of all top-level modules if it is empty."""
    if not package:
        return [module.name for module in pkgutil.iter_modules()]
    try:
        return [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    except (ImportError, AttributeError):
        return []
