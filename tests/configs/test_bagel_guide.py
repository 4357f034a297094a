"""The guide of BAGEL-7B states what `plan` prints."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from project.__main__ import main
from tests.helpers import ROOT

GUIDE = (ROOT / "configs/bagel/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", ["rt2i", "srr"])
def test_memory_and_time_are_those_of_the_plan(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plans = [shlex.split(line) for line in re.findall(r"^python -m project (plan .*--ranks 7.*)$", GUIDE, re.MULTILINE)]
    (command,) = (words for words in plans if ("configs/bagel/srr.yaml" in words) == (recipe == "srr"))
    assert main([*command, "--json", str(tmp_path / "plan.json")]) == 0
    figures = json.loads((tmp_path / "plan.json").read_text())
    stated = re.findall(r"(\d+) GB(?: on each GPU)? and (\d+) minutes", GUIDE)
    gigabytes, minutes = map(float, stated[["rt2i", "srr"].index(recipe)])
    assert figures["peak"] / 1e9 == pytest.approx(gigabytes, abs=1.5)
    assert sum(figures["seconds"].values()) / 60 == pytest.approx(minutes, rel=0.15)
