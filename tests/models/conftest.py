"""Parity: every test of reference data runs over all that are there; how far each case is off is told at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from tests.conftest import references

TABLE = pytest.StashKey[dict[str, tuple[float, float]]]()


def name_of(directory: Path) -> str:
    """Short, for reports: the folder that the data come from."""
    return directory.parts[-3] if len(directory.parts) > 3 else directory.name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bagel_fixture" in metafunc.fixturenames and (found := references(metafunc.config)):
        metafunc.parametrize("bagel_fixture", found, indirect=True, ids=map(name_of, found), scope="session")


@pytest.fixture(autouse=True)
def _named(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    if "bagel_fixture" in request.fixturenames and getattr(request.node, "callspec", None):
        record_property("reference", name_of(request.node.callspec.params["bagel_fixture"]))


@pytest.fixture
def record_error(request: pytest.FixtureRequest) -> Callable[[str, float, float], None]:
    """`record_error(case, error, tolerance)`: the worst of a case is reported."""
    table = request.config.stash.setdefault(TABLE, {})

    where = name_of(request.getfixturevalue("bagel_fixture").directory)

    def record(case: str, error: float, tolerance: float) -> None:
        case = f"{where}: {case}"
        table[case] = max(table.get(case, (0.0, tolerance)), (error, tolerance), key=lambda row: row[0] / (row[1] or 1))

    return record


@pytest.fixture
def near(request: pytest.FixtureRequest, record_error) -> Callable[[Tensor, Tensor], None]:
    """max|a - b| <= 2e-4 * max(1, max|b|), the tolerance of the reference data, for the case named by the test."""
    call = getattr(request.node, "callspec", None)
    case = (call and call.params.get("case")) or request.node.originalname.removeprefix("test_")

    def check(ours: Tensor, reference: Tensor) -> None:
        assert ours.shape == reference.shape
        error = (ours.float() - reference.float()).abs().max().item()
        tolerance = 2e-4 * max(1.0, reference.abs().max().item())
        record_error(case, error, tolerance)
        assert error <= tolerance, f"{case} differs from the reference by {error:.2e}"

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash.get(TABLE, {})
    if not table:
        return
    terminalreporter.section("parity with the reference data")
    counted: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            if reference := dict(report.user_properties).get("reference"):
                counted.setdefault(reference, Counter())[outcome] += 1
    for reference, counts in counted.items():
        told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))
        terminalreporter.line(f"{reference}: {told}")
    width = max(map(len, table))
    terminalreporter.line(f"{'case':{width}}  worst error  tolerance")
    for case in sorted(table):
        error, tolerance = table[case]
        terminalreporter.line(f"{case:{width}}  {error:11.1e}  {tolerance:9.1e}")
