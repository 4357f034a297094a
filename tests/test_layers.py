"""The rooms of `project/` form layers: imports only go downwards. Only `shapes/` names the embedded world."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers import ROOT

LAYERS = (
    ("__main__", "cli"),
    ("callbacks", "study", "planning"),
    ("module", "inference"),
    ("shapes",),
    ("training",),
    ("tasks",),
    ("benchmarks",),
    ("rewards",),
    ("decomposition",),
    ("judges",),
    ("models",),
    ("samplers", "objectives"),
    ("datamodule",),
    ("data",),
    ("core", "trajectory"),
)
"""From the top; rooms of one layer do not import each other, but for the two at the bottom."""
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}


def modules() -> dict[str, Path]:
    """Name -> file of every module of the package."""
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in sorted((ROOT / "project").rglob("*.py"))
    }


MODULES = modules()


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All that runs, also within functions: not what stands under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from statements(node)


def imported(file: Path) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it."""
    for node in statements(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("project"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("project"):
            names = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if name in MODULES else str(node.module) for name in names)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_the_root_holds_what_a_lightning_user_looks_for_and_the_rooms() -> None:
    found = {path.stem for path in (ROOT / "project").iterdir() if path.name not in ("__pycache__", "__init__.py")}
    assert found == set(DEPTH)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downwards(name: str) -> None:
    for other in imported(MODULES[name]):
        if room(name) and room(other) and room(name) != room(other):
            below = DEPTH[room(name)] < DEPTH[room(other)] or (room(name) in LAYERS[-1] and room(other) in LAYERS[-1])
            assert below, f"{name} imports {other}, which is not in a layer below"


def test_only_the_embedded_world_names_itself() -> None:
    strangers = {name for name in MODULES for other in imported(MODULES[name]) if room(other) == "shapes"}
    assert {room(name) for name in strangers} == {"shapes"}


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {name: {other for other in imported(file) if other in MODULES} for name, file in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the detour
