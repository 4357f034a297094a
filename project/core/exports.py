"""Short class paths: `project.judges.OpenAIJudge` for a class that a file of `project/judges` defines.

A room's `__init__.py` holds two lines:

    from project.core.exports import classes_of

    __getattr__, __dir__ = classes_of(__name__, __path__)

A class is found by reading the files, and only its own file is imported when it is asked for: help stays quick, and a
new file needs no entry anywhere.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

_CLASS = re.compile(r"^class ([A-Z]\w*)", re.MULTILINE)


def classes_of(
    package: str, folders: Iterable[str], pattern: str = "**/*.py"
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package: the public classes of its files, those of packages within it too.

    `pattern` names the files.
    """
    root = Path(next(iter(folders)))

    @cache
    def homes() -> dict[str, str]:
        """Class name -> module that defines it."""
        found: dict[str, str] = {}
        for file in sorted(root.glob(pattern)):
            module = ".".join((package, *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
            for name in _CLASS.findall(file.read_text(encoding="utf-8")):
                found.setdefault(name, module)
        return found

    def get(name: str) -> Any:
        if name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes()[name]), name)

    def names() -> list[str]:
        return sorted(homes())

    return get, names
