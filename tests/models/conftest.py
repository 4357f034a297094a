"""How far each case of the reference data is from upstream, told at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

TABLE = pytest.StashKey[dict[str, tuple[float, float]]]()


@pytest.fixture
def record_error(request: pytest.FixtureRequest) -> Callable[[str, float, float], None]:
    """`record_error(case, error, tolerance)`: the worst of a case is reported."""
    table = request.config.stash.setdefault(TABLE, {})

    def record(case: str, error: float, tolerance: float) -> None:
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
    width = max(map(len, table))
    terminalreporter.line(f"{'case':{width}}  worst error  tolerance")
    for case in sorted(table):
        error, tolerance = table[case]
        terminalreporter.line(f"{case:{width}}  {error:11.1e}  {tolerance:9.1e}")
