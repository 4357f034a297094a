"""`compare`: two evaluations of the same prompts -> gains with intervals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project.__main__ import main


def evaluation(file: Path, outcome: list[float | None], prompts: str = "abcd", **more: object) -> str:
    """Two kinds of two prompts in set "direct", and one more prompt in set "indirect"."""
    kinds = ["single", "single", "pair", "pair"]
    rows = [
        {"id": id_, "set": "direct", "kind": kind, "picture": value, "text": "words", **more}
        for id_, kind, value in zip(prompts, kinds, outcome, strict=True)
    ]
    rows.append({"id": "e", "set": "indirect", "kind": "single", "picture": 0.5, "reasoning": 1, "text": "", **more})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def before(tmp_path) -> str:
    return evaluation(tmp_path / "before.jsonl", [0, 0, 0.5, 0.5])


def test_gains_by_set_and_outcome_over_the_runs(before, tmp_path, capsys):
    # Gains of the two runs: 0 and 0.4 on every prompt, so 0, 20 or 40 points by the seeds drawn.
    after = [
        evaluation(tmp_path / "seed0.jsonl", [0, 0, 0.5, 0.5]),
        evaluation(tmp_path / "seed1.jsonl", [0.4, 0.4, 0.9, 0.9]),
    ]
    assert main(["compare", "--before", before, "--after", *after]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| set | outcome | prompts | before → after | gain |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| direct | picture | 4 | 25.0 → 45.0 | +20.0 [+0.0, +40.0] |",
        "| indirect | picture | 1 | 50.0 → 50.0 | +0.0 [+0.0, +0.0] |",
        "| indirect | reasoning | 1 | 100.0 → 100.0 | +0.0 [+0.0, +0.0] |",
    ]


def test_every_run_with_its_own_start(before, tmp_path, capsys):
    higher = evaluation(tmp_path / "higher.jsonl", [0.4, 0.4, 0.9, 0.9])
    assert main(["compare", "--before", before, higher, "--after", before, higher]) == 0
    assert "| direct | picture | 4 | 45.0 → 45.0 | +0.0 [+0.0, +0.0] |" in capsys.readouterr().out


def test_a_prompt_without_an_outcome_counts_in_neither(before, tmp_path, capsys):
    after = evaluation(tmp_path / "after.jsonl", [None, 0, 1, 1], asked=None)
    assert main(["compare", "--before", before, "--after", after]) == 0
    assert "| direct | picture | 3 | 25.0 → 50.0 | +25.0 [+25.0, +25.0] |" in capsys.readouterr().out


def test_outcomes_that_one_file_lacks_are_left_out(before, tmp_path, capsys):
    after = evaluation(tmp_path / "after.jsonl", [0, 0, 1, 1], reward=0.5)
    silent = evaluation(tmp_path / "silent.jsonl", [None] * 4, reward=0.5)
    assert main(["compare", "--before", before, "--after", after]) == 0
    assert main(["compare", "--before", after, "--after", silent]) == 0
    first, second = capsys.readouterr().out.split("| set |")[1:]
    assert "picture" in first and "reward" not in first
    assert "| direct | picture" not in second and "| direct | reward | 4 | 50.0 → 50.0" in second


def test_what_cannot_be_compared(before, tmp_path, capsys):
    def message(*options: str) -> str:
        capsys.readouterr()
        assert main(["compare", *options]) == 1
        return capsys.readouterr().err

    other = evaluation(tmp_path / "other.jsonl", [0, 0, 0, 0], prompts="abcx")
    assert f"{other} has other prompts than {before}" in message("--before", before, "--after", before, other)
    assert "--before names 2 files and --after 3" in message("--before", before, before, "--after", *[before] * 3)
    assert "there is no file nowhere.jsonl" in message("--before", before, "--after", "nowhere.jsonl")
    (tmp_path / "run/evaluations").mkdir(parents=True)
    (tmp_path / "run/evaluations/shapes_0.jsonl").touch()
    folder = message("--before", before, "--after", str(tmp_path / "run"))
    assert "run is a folder: name a file of it, such as" in folder and "shapes_0.jsonl" in folder
    (tmp_path / "empty.jsonl").write_text("")
    assert "holds no rows" in message("--before", str(tmp_path / "empty.jsonl"), "--after", before)
    (tmp_path / "half.jsonl").write_text('{"id": "a", ')
    assert "half.jsonl:1: is no JSON" in message("--before", before, "--after", str(tmp_path / "half.jsonl"))
