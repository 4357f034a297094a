"""`results.json` and the table made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from project.__main__ import main
from project.callbacks.checkpoint import SaveLast
from project.callbacks.results import Results
from tests.helpers import toys


def test_before_is_only_a_complete_validation(fit: Any, tmp_path: Path) -> None:
    fit(toys.LengthBenchmark(), Results(seed=5), updates=6, num_sanity_val_steps=1)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["before"] is None and results["after"]["length"] == 1.5
    assert (results["updates"], results["seed"]) == (6, 5)


def test_a_resumed_run_keeps_before_and_adds_up_seconds(fit: Any, tmp_path: Path) -> None:
    first = Results()
    fit(toys.LengthBenchmark(), first, SaveLast(), updates=2, num_sanity_val_steps=-1)
    first_seconds = json.loads((tmp_path / "results.json").read_text())["seconds"]
    (tmp_path / "results.json").unlink()
    resumed = Results()
    resumed._start = 0.0
    fit(toys.LengthBenchmark(), resumed, ckpt_path=tmp_path / "checkpoints/last.ckpt", num_sanity_val_steps=-1)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["before"]["length"] == 1.5 and results["seconds"] >= first_seconds


def test_several_benchmarks_stand_side_by_side(fit: Any, tmp_path: Path) -> None:
    class Other(toys.LengthBenchmark):
        pass

    fit(toys.LengthBenchmark(), Other(), Results(), num_sanity_val_steps=-1)
    before = json.loads((tmp_path / "results.json").read_text())["before"]
    assert {name: scores["length"] for name, scores in before.items()} == {"length": 1.5, "other": 1.5}


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"direct": 0.25, "second_opinion": {"direct": 0.5}, "by_kind": {"pair": {"direct": 1.0}}}
    after = {**scores, "direct": 0.75, "new": 1.0}
    record = {"before": scores, "after": after, "updates": 9, "seed": 1, "seconds": 61.4}
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0/results.json").write_text(json.dumps(record))
    (tmp_path / "version_0/before_after.png").touch()
    assert main(["results", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["run", str(tmp_path / "version_0")]
    assert lines[1:5] == [
        ["score", "before", "after", "change"],
        ["direct", "0.250", "0.750", "+0.500"],
        ["second_opinion/direct", "0.500", "0.500", "+0.000"],
        ["new", "-", "1.000", "-"],
    ]
    assert lines[6] == ["9", "updates", "in", "61", "s,", "seed", "1"]
    # Where to look: what is there.
    folder = str(tmp_path / "version_0")
    assert lines[7:] == [
        ["pictures:", f"{folder}/before_after.png"],
        ["by", "kind:", f"{folder}/results.json"],
        ["curves:", "tensorboard", "--logdir", folder],
    ]


def test_scores_of_published_benchmarks_do_not_hide_those_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are written beside a run, and are newer."""
    figures = {"before": {"dpg": {"overall": 0.5, "official": {"overall": 0.5}}}, "after": None}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.json").write_text(json.dumps({**figures, "updates": 0, "seconds": 1, "seed": 0}))
    (tmp_path / "benchmarks/dpg-1").mkdir(parents=True)
    (tmp_path / "benchmarks/dpg-1/results.json").write_text(json.dumps({"benchmark": "dpg", "overall": 0.5}))
    assert main(["results", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "dpg/overall" in table and "official" not in table
    assert main(["results", str(tmp_path / "benchmarks")]) == 1
    assert "python -m project report" in capsys.readouterr().err
