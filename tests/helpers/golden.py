"""Inputs and outputs of the benchmarks' official scorers, from the folder that `--golden` names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers import ROOT


def parametrize_golden(metafunc: pytest.Metafunc) -> None:
    """Gives a test whose argument is the name of a golden file a case of that file; skips it where there is none.

    A test module's `pytest_generate_tests` calls it. `golden_tiif_parse` is a case of tiif_parse.json.
    """
    for argument in metafunc.fixturenames:
        if not argument.startswith("golden_"):
            continue
        name = argument.removeprefix("golden_")
        file = (ROOT / metafunc.config.getoption("--golden") / f"{name}.json").resolve()
        if not file.is_file():
            skip = pytest.mark.skip(reason=f"{file} is not there: pass --golden DIR")
            metafunc.parametrize(argument, [pytest.param(None, marks=skip)])
            continue
        cases: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["cases"]
        ids = [str(case.get("name", number)) for number, case in enumerate(cases)]
        metafunc.parametrize(argument, cases, ids=ids)
