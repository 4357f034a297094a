"""Class paths that older configurations name, and where these classes stand now.

A class is looked up by its name in the files of the project, which are read and not imported.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
PATH = re.compile(r"project\.((?:[a-z_]\w*\.)+)([A-Z]\w*)")


def moved(path: str) -> str | None:
    """The new name of a class path of this project; None if the path holds, or is none, or nothing has its name."""
    found = PATH.fullmatch(path)
    if found is None or _holds(found[1].split(".")[:-1], found[2]):
        return None
    homes = _homes().get(found[2], ())
    return " or ".join(homes) or None


def canonical(path: str) -> str:
    """The one name of a class of this project, whatever path it is written with; any other text as it is."""
    found = PATH.fullmatch(path)
    if found is None:
        return path
    homes = _homes().get(found[2], [])
    if len(homes) > 1:
        room = found[1].partition(".")[0]
        homes = [home for home in homes if home.startswith(f"project.{room}.")]
    return homes[0] if len(homes) == 1 else path


def _holds(module: list[str], name: str) -> bool:
    """Whether the class can be imported by this name, as far as the files tell."""
    place = PACKAGE.joinpath(*module)
    file = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
    if not file.is_file():
        return False
    if _exports(file):
        return any(_defines(inner, name) for inner in place.rglob("*.py"))
    return re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")) is not None


@cache
def _homes() -> dict[str, list[str]]:
    """Class name -> its class paths, the shortest of each: one, unless two rooms have a class of this name."""
    homes: dict[str, list[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        module = file.relative_to(PACKAGE.parent).with_suffix("").parts
        short = module[:2] if _exports(PACKAGE / module[1] / "__init__.py") else module
        for name in re.findall(r"^class ([A-Z]\w*)", file.read_text(encoding="utf-8"), re.MULTILINE):
            path = ".".join((*short, name))
            homes[name] = list(dict.fromkeys([*homes.get(name, ()), path]))
    return homes


@cache
def _exports(file: Path) -> bool:
    """Whether this is the `__init__.py` of a room whose classes have short paths (`project.core.exports`)."""
    return file.is_file() and "classes_of(" in file.read_text(encoding="utf-8")


def _defines(file: Path, name: str) -> bool:
    return re.search(rf"^class {name}\b", file.read_text(encoding="utf-8"), re.MULTILINE) is not None
