"""Studies: the plan and its refusals, runs that are kept, resumed and stopped, and reports with known numbers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from project.__main__ import main
from project.study.archive import open_archive
from project.study.compare import compare, saved_report
from project.study.evaluations import Pair, outcomes, read_pair, read_rows
from project.study.figure import smoothed
from project.study.plan import Measure, read_study
from project.study.report import _line, markdown
from project.study.results import read_curve
from project.study.runs import check_prompts, run_all, runs_of
from tests.helpers import ROOT

PYTHON = sys.executable
STUDY = """\
name: toy
seeds: [0, 1]
benchmark: shapes
arms:
  grpo: {configs: [base.yaml], overrides: {model.gain: 2}}
  random: {configs: [base.yaml, other.yaml]}
overrides: {trainer.max_steps: 3, data.names: [a, b], data.ema: {class_path: project.callbacks.ema.EMA}}
compare: [[grpo, random]]
curves: [reward/mean, never/logged]
measures:
  direct: {outcome: picture, sets: [direct]}
  reward: {outcome: reward}
bars:
  - {measure: direct, arm: grpo, at_least: 25, lower_bound_above: 0}
  - {measure: direct, arm: grpo, versus: random, at_least: 90}
"""
# Arms that train differently: only srr and mixed refine, only edits are evaluated by the other benchmark.
ABLATIONS = """\
name: toy
seeds: [0, 1]
benchmark: shapes
arms:
  rt2i: {configs: [base.yaml], overrides: {data.edits: 1}}
  srr: {configs: [base.yaml], overrides: {model.rounds: 1, data.edits: 2}}
  mixed: {configs: [base.yaml], overrides: {model.rounds: 1, model.gain: 1}}
  binary: {configs: [base.yaml, other.yaml]}
compare: [[srr, rt2i], [mixed, rt2i]]
curves: [reward/mean]
means: [srr/wrong, late, never/logged]
measures:
  direct: {outcome: picture, sets: [direct]}
  round: {outcome: picture@round1, minus: picture, sets: [direct], arms: [srr, mixed]}
  harm: {outcome: picture, minus: picture@round1, sets: [direct], arms: [srr]}
  editing: {outcome: kept, benchmark: shapesediting, arms: [rt2i, srr]}
tables:
  refinement: {arms: [rt2i, srr, mixed]}
  rewards: {arms: [binary, rt2i], measures: [direct], compare: [[rt2i, binary]], curves: [], means: [late]}
bars:
  - {measure: editing, arm: srr, versus: rt2i, at_least: 25}
  - {measure: round, arm: mixed, at_least: 75}
"""
# Stands in for the Python that runs `-m project fit`: 4 direct prompts (2 kinds, unevenly) and 1 indirect one. All
# fail before; with model.gain all of kind "single" succeed after. With model.rounds a refined picture of prompts 0 and
# 1 succeeds after, and of 3 it is not known before. With data.edits the other benchmark goes from 0.25 up by a quarter
# for each. A file `fail`, `hang` or `no_after` in its folder changes it; `stop_at` names a run that fails.
FIT = """\
#!{python}
import json, os, pathlib, signal, sys, time
options = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[4:])
home = pathlib.Path(options["run.root"], options["run.name"])
with open(home.parent / "order.txt", "a") as order:
    print(home.name, options.get("ckpt_path", "fresh"), os.environ.get("OMP_NUM_THREADS"), file=order)
folder = pathlib.Path(options["ckpt_path"]).parents[1] if "ckpt_path" in options else home / "version_0"
(folder / "evaluations").mkdir(parents=True, exist_ok=True)
(folder / "checkpoints").mkdir(exist_ok=True)
print("fit at work")
stop_at = pathlib.Path("stop_at")
if pathlib.Path("fail").exists() or stop_at.exists() and stop_at.read_text() == home.name:
    sys.exit("error: no such luck")
if pathlib.Path("hang").exists():
    def stop(*_):
        (folder / "checkpoints/last.ckpt").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    (home.parent / f"hanging-{{home.name}}").touch()
    time.sleep(60)
for update in (0, 3):
    rows = [{{"id": str(n), "set": "direct", "kind": "single" if n == 0 else "count", "reward": 0.5,
              "picture": int(update == 3 and n == 0 and "model.gain" in options)}} for n in range(4)]
    rows.append({{"id": "4", "set": "indirect", "kind": "single", "picture": 1, "reward": None}})
    if "model.rounds" in options:
        for n, row in enumerate(rows):
            row["picture@round1"] = None if update == 0 and n == 3 else int(update == 3 and n < 2)
    (folder / f"evaluations/shapes_{{update}}.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    if "data.edits" in options:
        kept = 0.25 + 0.25 * int(options["data.edits"]) * (update == 3)
        rows = [{{"id": f"edit-{{n}}", "set": "edit", "kind": "colour", "kept": kept}} for n in range(2)]
        text = "".join(json.dumps(row) + "\\n" for row in rows)
        (folder / f"evaluations/shapesediting_{{update}}.jsonl").write_text(text)
(folder / "metrics.csv").write_text("step,reward/mean\\n1,0.25\\n2,\\n3,0.75\\n")
if "model.rounds" in options:
    wrong = ("0.25", "nan", "0.75") if options["seed_everything"] == "0" else ("0.5", "", "1.0")
    rows = "".join(f"{{n}},0.5,{{value}}\\n" for n, value in enumerate(wrong))
    (folder / "metrics.csv").write_text("step,reward/mean,srr/wrong\\n" + rows)
elif options["seed_everything"] == "1":
    (folder / "metrics.csv").write_text("step,reward/mean,late\\n1,0.25,\\n3,0.75,2\\n")
after = None if pathlib.Path("no_after").exists() else {{"direct": 0.5}}
(folder / "results.json").write_text(json.dumps({{"before": {{}}, "after": after, "updates": 3, "seconds": 7.5}}))
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with a study, its configurations, and a quick stand-in for the interpreter that runs `fit`."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("trainer: {max_steps: 5}\nmodel: {rate: 1e-4}\n")
    Path("other.yaml").write_text("rewards: []\n")
    Path("study.yaml").write_text(STUDY)
    fake = tmp_path / "python"
    fake.write_text(FIT.format(python=sys.executable))
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr("project.study.runs.POLL_SECONDS", 0.02)
    return tmp_path


def study(*arguments: str) -> int:
    return main(["study", "--config", "study.yaml", "--out", "out", *arguments])


def order() -> list[str]:
    file = Path("out/order.txt")
    return sorted(file.read_text().splitlines()) if file.is_file() else []


def test_a_study_runs_once_and_reports_numbers_known_by_hand():
    assert study() == 0
    # The kind "single" (1 prompt) goes from 0 to 1, "count" (3 prompts) stays at 0; both weigh a half.
    table = json.loads(Path("out/table.json").read_text())
    fifty, nothing = ({"mean": m, "low": m, "high": m} for m in (50.0, 0.0))
    direct = table["lines"]["direct"]
    assert direct["gain"] == {"grpo": fifty, "random": nothing}
    assert direct["before"]["grpo"] == nothing and direct["after"]["grpo"] == fifty
    assert direct["versus"] == {"grpo": {"random": fifty}}
    assert (direct["prompts"], direct["left_out"]) == (4, 0)
    # The indirect prompt was not scored anywhere: it counts in no mean, and the table says so.
    assert (table["lines"]["reward"]["prompts"], table["lines"]["reward"]["left_out"]) == (4, 1)
    assert table["efforts"]["random"] == {"updates": [3, 3], "seconds": [7.5, 7.5]}
    assert [verdict["met"] for verdict in table["verdicts"]] == [True, False]

    text = Path("out/table.md").read_text()
    row = "| direct | 4 | 0.0 → 50.0 | +50.0 [+50.0, +50.0] | 0.0 → 0.0 | +0.0 [+0.0, +0.0] | +50.0 [+50.0, +50.0] |"
    assert row in text
    assert "2 seeds (0, 1)" in text and "grpo 3 updates in 8 s a run" in text
    assert "reward: 1 prompts left out" in text
    assert "- [x] direct, gain of grpo: at least +25, lower bound above 0: yes, +50.0 [+50.0, +50.0]" in text
    assert "- [ ] direct, gain of grpo - random: at least +90: no, +50.0 [+50.0, +50.0]" in text
    assert Path("out/figure.png").read_bytes().startswith(b"\x89PNG")

    assert study() == 0
    assert order() == [f"{arm}-{seed} fresh None" for arm in ("grpo", "random") for seed in (0, 1)]


def interval(value) -> tuple[float, float, float]:
    return value["mean"], value["low"], value["high"]


def test_arms_that_train_differently_are_compared_where_they_can_be(place):
    Path("study.yaml").write_text(ABLATIONS)
    assert study("--archive", "toy.zip") == 0
    table = json.loads(Path("out/table.json").read_text())
    # A refined picture is worth nothing before. After, with prompt 3 left out, it is worth 1 on the only prompt of kind
    # "single" and 1 and 0 on two of kind "count"; of these the mean of two draws is 0, 1/2 or 1.
    line = table["lines"]["round"]
    assert (line["prompts"], line["left_out"], sorted(line["gain"])) == (3, 1, ["mixed", "srr"])
    assert interval(line["before"]["srr"]) == (0, 0, 0)
    assert interval(line["gain"]["srr"]) == interval(line["after"]["srr"]) == (75, 50, 100)
    # The first pictures of mixed get better too, on the prompt "single": there a round adds nothing.
    assert interval(line["gain"]["mixed"]) == (25, 0, 50)
    assert line["versus"] == {}, "rt2i does not refine"
    assert interval(table["lines"]["harm"]["gain"]["srr"]) == (-75, -100, -50)
    # The other benchmark has prompts of its own, and levels 0.25 -> 0.5 and 0.25 -> 0.75.
    line = table["lines"]["editing"]
    assert line["prompts"] == 2 and interval(line["before"]["rt2i"]) == (25, 25, 25)
    assert interval(line["gain"]["srr"]) == (50, 50, 50)
    assert {a: {b: value["mean"] for b, value in others.items()} for a, others in line["versus"].items()} == {
        "srr": {"rt2i": 25}
    }
    assert [verdict["met"] for verdict in table["verdicts"]] == [True, False]
    # Means over updates 1/4, 3/4 and 1/2, 1, without the one that is no number.
    assert table["means"] == {
        "srr/wrong": {"rt2i": [None] * 2, "srr": [0.5, 0.75], "mixed": [0.5, 0.75], "binary": [None] * 2},
        "late": {"rt2i": [None, 2], "srr": [None] * 2, "mixed": [None] * 2, "binary": [None, 2]},
        "never/logged": dict.fromkeys(["rt2i", "srr", "mixed", "binary"], [None] * 2),
    }
    assert list(table["sections"]) == ["refinement", "rewards"]

    text = Path("out/table.md").read_text()
    refinement, rewards = text.split("## refinement\n\n")[1].split("\n\n## rewards\n\n")
    assert refinement.replace(" \N{EN DASH} ", " - ").splitlines() == [
        "| measure | prompts | rt2i: before → after | gain | srr: before → after | gain | mixed: before → after | gain "
        "| gain of srr - rt2i | gain of mixed - rt2i |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| direct | 4 | 0.0 → 0.0 | +0.0 [+0.0, +0.0] | 0.0 → 0.0 | +0.0 [+0.0, +0.0] | 0.0 → 50.0 "
        "| +50.0 [+50.0, +50.0] | +0.0 [+0.0, +0.0] | +50.0 [+50.0, +50.0] |",
        "| round | 3 | - | - | 0.0 → 75.0 | +75.0 [+50.0, +100.0] | 0.0 → 25.0 | +25.0 [+0.0, +50.0] | - | - |",
        "| harm | 3 | - | - | 0.0 → -75.0 | -75.0 [-100.0, -50.0] | - | - | - | - |",
        "| editing | 2 | 25.0 → 50.0 | +25.0 [+25.0, +25.0] | 25.0 → 75.0 | +50.0 [+50.0, +50.0] | - | - "
        "| +25.0 [+25.0, +25.0] | - |",
        "",
        "| mean over updates (range over seeds) | rt2i | srr | mixed |",
        "| --- | ---: | ---: | ---: |",
        "| srr/wrong | - | 0.625 (0.5 to 0.75) | 0.625 (0.5 to 0.75) |",
        "| late | 2, 1 of 2 seeds | - | - |",
        "| never/logged | - | - | - |",
    ]
    rewards, notes = rewards.split("\n\n## Notes\n\n")
    assert rewards.splitlines()[0] == (
        "| measure | prompts | binary: before → after | gain | rt2i: before → after | gain | gain of rt2i - binary |"
    )
    assert rewards.splitlines()[-1] == "| late | 2, 1 of 2 seeds | 2, 1 of 2 seeds |"
    assert len(rewards.splitlines()) == 3 + 1 + 3
    assert notes.startswith("Percentage points") and "round: 1 prompts left out" in notes
    for name in ("refinement", "rewards"):
        assert Path(f"out/figure_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not Path("out/figure.png").exists()

    # The archive keeps both benchmarks and the columns of the means: it gives the same report.
    shutil.rmtree("out")
    assert study("--archive", "toy.zip", "--report-only") == 0
    assert Path("out/table.md").read_text() == text and order() == []


def test_a_part_of_arms_that_train_differently_keeps_what_can_be_asked_of_it():
    Path("study.yaml").write_text(ABLATIONS)
    Path("stop_at").write_text("srr-0")
    assert study() == 1
    assert study("--report-only") == 0
    table = json.loads(Path("out/table.json").read_text())
    assert list(table["lines"]) == ["direct", "editing"] and table["verdicts"] == []
    refinement = table["sections"]["refinement"]
    assert (refinement["arms"], refinement["measures"], refinement["compare"]) == (["rt2i"], ["direct", "editing"], [])
    assert table["missing"] == ["srr-0", "mixed-0", "binary-0", "rt2i-1", "srr-1", "mixed-1", "binary-1"]
    assert "rewards" in table["sections"] and table["sections"]["rewards"]["arms"] == ["rt2i"]


def test_one_outcome_minus_another_is_unknown_where_either_is():
    def rows(*values: tuple[float | None, float | None]) -> dict[str, dict[str, object]]:
        return {str(n): {"set": "s", "kind": "k", "a": a, "b": b} for n, (a, b) in enumerate(values)}

    before, after = rows((1, 0), (None, 1), (0, 1), (1, 1)), rows((0, 1), (1, 1), (0, None), (0.5, 0.25))
    found = outcomes({"x": [Pair(before=before, after=after)]}, "m", Measure(outcome="a", minus="b"))
    assert found.before["x"].value_SP.tolist() == [[1, 0]] and found.after["x"].value_SP.tolist() == [[-1, 0.25]]
    assert found.left_out == 2 and found.strata_P == ("s/k", "s/k")
    with pytest.raises(ValueError, match="not all rows of x have an outcome 'c': choose of a, b, or leave the arm"):
        outcomes({"x": [Pair(before=before, after=after)]}, "m", Measure(outcome="a", minus="c"))
    nothing = rows((None, 1), (1, None))
    with pytest.raises(ValueError, match="no prompt has an outcome 'a' and one 'b' in every"):
        outcomes({"x": [Pair(before=nothing, after=nothing)]}, "m", Measure(outcome="a", minus="b"))


def test_a_share_is_taken_of_what_is_given():
    def rows(*values: tuple[int, int]) -> dict[str, dict[str, object]]:
        return {str(n): {"set": "s", "kind": "k", "first": a, "refined": b} for n, (a, b) in enumerate(values)}

    # Of the wrong pictures 1 of 3 is put right before training, 1 of 2 after.
    before, after = rows((0, 1), (0, 0), (0, 0), (1, 1)), rows((0, 1), (1, 1), (0, 0), (1, 0))
    measure = Measure(outcome="refined", given={"first": 0})
    found = outcomes({"x": [Pair(before=before, after=after)]}, "repaired", measure)
    line = _line(found, [])
    assert (line.before["x"].mean, line.after["x"].mean) == pytest.approx((100 / 3, 50))
    assert line.gain["x"].mean == pytest.approx(50 - 100 / 3)
    with pytest.raises(ValueError, match=r"no prompt has what is given, \{'first': 3\}"):
        outcomes({"x": [Pair(before=before, after=after)]}, "m", Measure(outcome="refined", given={"first": 3}))
    with pytest.raises(ValueError, match="have an outcome 'second'"):
        outcomes({"x": [Pair(before=before, after=after)]}, "m", Measure(outcome="refined", given={"second": 0}))


def test_threads_reach_the_environment_of_the_runs_only():
    assert study("--parallel", "2") == 0
    assert {line.split()[-1] for line in order()} == {"1"}
    assert study("--threads", "3", "--out", "out3") == 0
    assert {line.split()[-1] for line in Path("out3/order.txt").read_text().splitlines()} == {"3"}
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    "overrides", ["data.init_args.val: other.jsonl", "data.init_args.val: {shapes: other.jsonl, edits: base.jsonl}"]
)
def test_arms_on_different_prompts_are_refused_before_any_run(overrides, capsys):
    Path("base.yaml").write_text("data: {init_args: {val: base.jsonl}}\n")
    unlike = STUDY.replace("overrides: {model.gain: 2}", f"overrides: {{{overrides}}}")
    Path("study.yaml").write_text(unlike)
    assert study() == 1
    error = capsys.readouterr().err
    assert "measure 'direct' is taken on arms" in error and "grpo: other.jsonl, random: base.jsonl" in error
    assert not Path("out").exists()
    # Each measure has an arm of its own.
    apart = unlike.replace("sets: [direct]}", "sets: [direct], arms: [grpo]}").replace(
        "reward}", "reward, arms: [random]}"
    )
    Path("study.yaml").write_text(apart.split("bars:")[0].replace("compare: [[grpo, random]]\n", ""))
    assert study() == 0


def test_the_command_of_a_run():
    run = runs_of(read_study("study.yaml"), Path("out"))[0]
    assert run.command == (
        "fit",
        "--config=base.yaml",
        "--trainer.max_steps=3",
        '--data.names=["a", "b"]',
        '--data.ema={"class_path": "project.callbacks.ema.EMA"}',
        "--model.gain=2",
        "--run.name=grpo-0",
        "--seed_everything=0",
        "--run.root=out",
    )
    assert [r.name for r in runs_of(read_study("study.yaml"), Path("out"))] == [
        "grpo-0",
        "random-0",
        "grpo-1",
        "random-1",
    ]


@pytest.mark.skipif(not (ROOT / "configs/shapes/demo.yaml").is_file(), reason="configs/shapes/demo.yaml is not there")
def test_fit_knows_the_options_of_a_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    plan = read_study("configs/shapes/studies/demo.yaml")
    run = next(run for run in runs_of(plan, Path("elsewhere")) if run.name == "random-2")
    assert main([*run.command, "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "root: elsewhere" in printed and "name: random-2" in printed and "seed_everything: 2" in printed


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("studies/*.yaml")), ids=lambda file: file.stem)
def test_the_studies_of_the_repository_can_be_run(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = read_study(file)
    assert plan.name == file.stem
    assert len(plan.seeds) >= 2
    check_prompts(plan, runs_of(plan, Path("out")))


def test_a_failed_run_is_quoted_and_started_again(capsys):
    Path("fail").touch()
    assert study() == 1
    message = capsys.readouterr().err
    assert "run grpo-0 failed with exit code 1" in message
    assert "error: no such luck" in message and "out/grpo-0/log.txt" in message
    assert order() == ["grpo-0 fresh None"]
    Path("fail").unlink()
    assert study() == 0
    assert len(order()) == 5


def test_a_run_without_a_score_is_no_finished_run(capsys):
    Path("no_after").touch()
    assert study() == 1
    assert "without a score after training" in capsys.readouterr().err


def test_a_score_of_an_unfinished_run_does_not_count():
    # A validation in mid-training writes "after" too: only a run that ended well is finished.
    run = runs_of(read_study("study.yaml"), Path("out"))[0]
    run.note(finished=False)
    (run.home / "version_0").mkdir()
    (run.home / "version_0/results.json").write_text('{"after": {}}')
    assert run.results() and run.finished() is None
    run.note(finished=True)
    assert run.finished() == run.home / "version_0"


def test_an_interrupted_run_goes_on_from_its_newest_checkpoint():
    run = runs_of(read_study("study.yaml"), Path("out"))[0]
    for version in (0, 2, 10, 11):
        (run.home / f"version_{version}/checkpoints").mkdir(parents=True)
    for version in (2, 10):
        (run.home / f"version_{version}/checkpoints/last.ckpt").touch()
    run.note(finished=False)
    run_all([run])
    assert order() == ["grpo-0 out/grpo-0/version_10/checkpoints/last.ckpt None"]
    assert run.finished() == run.home / "version_10"


def test_sigterm_stops_the_runs_which_then_go_on():
    Path("hang").touch()
    code = (
        f"import sys; from project.__main__ import main; sys.executable = {sys.executable!r}\n"
        "sys.exit(main(['study', '--config', 'study.yaml', '--out', 'out', '--parallel', '2']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([PYTHON, "-c", code], env=environment)
    while len(order()) < 2 or len(list(Path("out").glob("hanging-*"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    Path("hang").unlink()
    assert study() == 0
    resumed = [line for line in order() if "last.ckpt" in line]
    assert [line.split()[0] for line in resumed] == ["grpo-0", "random-0"]


def test_other_settings_are_not_mixed_with_finished_runs(capsys):
    assert study() == 0
    # Neither a comment, the layout, how a number is written, nor a value that an option overrides makes another run.
    Path("base.yaml").write_text("# a comment\nmodel:\n  rate: 0.0001\ntrainer:\n  max_steps: 6\n")
    assert study() == 0
    # A class by another of its names, and the same settings parted over other files, are the same run.
    judge = "class_path: project.shapes.DetectorJudge"
    Path("more.yaml").write_text(f"trainer: {{max_steps: 5}}\nmodel: {{judge: {{{judge}}}, rate: 1.0e-4}}\n")
    Path("base.yaml").write_text("model: {judge: {class_path: project.shapes.judge.DetectorJudge}}\n")
    Path("study.yaml").write_text(STUDY.replace("[base.yaml", "[base.yaml, more.yaml"))
    assert study("--out", "moved") == 0
    for file in Path("moved").glob("*/run.json"):
        file.write_text(file.read_text().replace("project.shapes.DetectorJudge", "project.judges.shapes.DetectorJudge"))
    capsys.readouterr()
    assert study("--out", "moved") == 0
    Path("more.yaml").write_text(f"trainer: {{max_steps: 5}}\nmodel: {{judge: {{{judge}}}, rate: 1.0e-3}}\n")
    assert study("--out", "moved") == 1
    Path("study.yaml").write_text(STUDY)
    Path("base.yaml").write_text("trainer: {max_steps: 5}\nmodel: {rate: 1.0e-3}\n")
    assert study() == 1
    message = capsys.readouterr().err
    assert "out/grpo-0 holds a run with other settings" in message and "--out" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("base.yaml, other.yaml", "base.yaml, missing.yaml", "there is no missing.yaml"),
        ("configs: [base.yaml],", "configs: [],", "arm 'grpo' has no configs"),
        ("seeds: [0, 1]", "seeds: []", "seeds is empty"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "holds one twice"),
        ("seeds: [0, 1]", "seeds: [one]", "study.yaml:2: seeds is 'one': give int"),
        ("seeds:", "sedes:", "study.yaml:2: unknown key 'sedes' at the top level: did you mean 'seeds'?"),
        ("configs: [base.yaml],", "confgis: [base.yaml],", "did you mean 'configs'?"),
        ("  grpo:", "  gr/po:", "arm 'gr/po': the name becomes that of files"),
        ("[[grpo, random]]", "[[grpo, rondom]]", "compare: there is no 'rondom': did you mean 'random'?"),
        ("{measure: direct, arm: grpo, at", "{measure: dirct, arm: grpo, at", "did you mean 'direct'?"),
        ("versus: random", "versus: rand", "did you mean 'random'?"),
        (", at_least: 90", "", "asks nothing"),
        ("name: toy", "name: [", "study.yaml:"),
        ("benchmark: shapes\n", "", "lacks 'benchmark'"),
    ],
)
def test_a_wrong_study_is_one_message_before_anything_runs(old, new, message, capsys):
    assert old in STUDY
    Path("study.yaml").write_text(STUDY.replace(old, new))
    assert study() == 1
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arms: [srr]}", "arms: [ssr]}", "measure 'harm': arms: there is no 'ssr': did you mean 'srr'?"),
        ("arm: mixed", "arm: rt2i", "bars: arms of measure 'round': there is no 'rt2i': choose of mixed, srr"),
        ("versus: rt2i", "versus: mixed", "bars: arms of measure 'editing': there is no 'mixed': choose of rt2i, srr"),
        ("minus: picture@", "minsu: picture@", "did you mean 'minus'?"),
        (
            "{arms: [rt2i, srr, mixed]}",
            "{arms: [rt2i, sr]}",
            "table 'refinement': arms: there is no 'sr': did you mean",
        ),
        ("{arms: [rt2i, srr, mixed]}", "{amrs: [rt2i]}", "did you mean 'arms'?"),
        ("{arms: [rt2i, srr, mixed]}", "{arms: []}", "table 'refinement': arms is empty"),
        ("  refinement:", "  re/finement:", "table 're/finement': the name becomes that of files"),
        ("measures: [direct]", "measures: [dirct]", "table 'rewards': measures: there is no 'dirct': did you mean"),
        ("measures: [direct]", "measures: [round]", "measure 'round' is taken on none of its arms, but on srr, mixed"),
        ("[[rt2i, binary]]", "[[srr, binary]]", "table 'rewards': compare: there is no 'srr': choose of binary, rt2i"),
        ("curves: []", "curves: [reward/men]", "table 'rewards': curves: there is no 'reward/men': did you mean"),
        ("means: [late]", "means: [lat]", "table 'rewards': means: there is no 'lat': did you mean 'late'?"),
        ("sets: [direct]}\n  round", "arms: [rt2i]}\n  round", "no measure is taken on arm 'binary'"),
    ],
)
def test_wrong_arms_and_tables_are_one_message_before_anything_runs(old, new, message, capsys):
    assert old in ABLATIONS
    Path("study.yaml").write_text(ABLATIONS.replace(old, new))
    assert study() == 1
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_an_outcome_that_an_arm_lacks_names_the_arm(capsys):
    Path("study.yaml").write_text(ABLATIONS.replace("arms: [srr]}", "arms: [srr, rt2i]}"))
    assert study() == 1
    message = capsys.readouterr().err
    assert "measure 'harm': not all rows of rt2i have an outcome 'picture@round1'" in message
    assert "leave the arm out of the measure's `arms`" in message


def test_a_missing_study_and_wrong_numbers(capsys):
    assert main(["study", "--config", "nowhere.yaml"]) == 1
    assert "there is no study nowhere.yaml" in capsys.readouterr().err
    assert study("--parallel", "0") == 1
    assert "--parallel 0: give at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("outcome: picture", "outcome: pictrue", "an outcome 'pictrue': choose of picture, reward"),
        ("sets: [direct]", "sets: [drect]", "there is no set 'drect'"),
        ("benchmark: shapes", "benchmark: shape", "a study needs shape_0.jsonl"),
    ],
)
def test_a_measure_that_was_not_taken_is_refused(old, new, message, capsys):
    Path("study.yaml").write_text(STUDY.replace(old, new))
    assert study() == 1
    assert message in capsys.readouterr().err


def test_other_prompts_cannot_be_paired(capsys):
    assert study() == 0
    file = Path("out/random-1/version_0/evaluations/shapes_3.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    assert study() == 1
    assert "different prompts" in capsys.readouterr().err


def test_evaluations_before_and_after_are_the_first_and_the_last(place):
    folder = place / "evaluations"
    folder.mkdir()
    for update in (0, 9, 10):
        (folder / f"shapes_{update}.jsonl").write_text(json.dumps({"id": str(update), "set": "", "kind": ""}) + "\n")
    # Of other benchmarks, one of which begins with the same word.
    (folder / "other_99.jsonl").write_text("")
    for update in (0, 77):
        row = {"id": f"edit {update}", "set": "", "kind": ""}
        (folder / f"shapesediting_{update}.jsonl").write_text(json.dumps(row) + "\n")
    pair = read_pair(place, "shapes")
    assert (list(pair.before), list(pair.after)) == (["0"], ["10"])
    pair = read_pair(place, "shapesediting")
    assert (list(pair.before), list(pair.after)) == (["edit 0"], ["edit 77"])


def test_rows_that_are_none_are_told_by_line(place):
    row = json.dumps({"id": "a", "set": "", "kind": ""})
    for lines, message in (
        ([row, "{"], r"rows:2: is no JSON"),
        (['{"id": "a", "set": ""}'], r"rows:1: lacks kind"),
        (["[]"], r"rows:1: is a JSON list"),
        ([row, row], r"rows:2: repeats the id 'a'"),
    ):
        Path("rows").write_text("\n".join(lines))
        with pytest.raises(ValueError, match=message):
            read_rows(Path("rows"))


def test_curves():
    Path("metrics.csv").write_text("step,reward/mean,other,none\n1,0.25,,nan\n2,nan,1,\n3,0.75,,nan\n")
    steps, values = read_curve(Path("metrics.csv"), "reward/mean")
    assert steps.tolist() == [1, 3] and values.tolist() == [0.25, 0.75]
    assert read_curve(Path("metrics.csv"), "nothing") is None and read_curve(Path("metrics.csv"), "none") is None
    assert read_curve(Path("nowhere.csv"), "other") is None
    assert smoothed(np.array([1.0, 2.0, 3.0, 6.0]), width=2) == pytest.approx([1.0, 1.5, 2.5, 4.5])


def runs() -> list[str]:
    return sorted(line.split()[0] for line in order())


def test_an_archive_is_the_study_on_another_machine():
    assert study("--archive", "kept/toy.zip") == 0
    archive = Path("kept/toy.zip")
    first, table = archive.read_bytes(), Path("out/table.md").read_text()
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == sorted(
            f"{arm}-{seed}/{file}"
            for arm in ("grpo", "random")
            for seed in (0, 1)
            for file in (
                "evaluations/shapes_0.jsonl",
                "evaluations/shapes_3.jsonl",
                "metrics.csv",
                "results.json",
                "run.json",
            )
        )
        assert packed.read("grpo-0/metrics.csv") == b"step,reward/mean\n1,0.25\n3,0.75\n"
    # Elsewhere, and in another folder: nothing is trained, the report is the same, the archive too.
    for arguments in (["--out", "there"], ["--out", "again", "--report-only"]):
        shutil.rmtree("out", ignore_errors=True)
        assert study("--archive", "kept/toy.zip", *arguments) == 0
        assert not Path(arguments[1], "order.txt").exists()
        assert Path(arguments[1], "table.md").read_text() == table
        assert Path(arguments[1], "figure.png").is_file()
    assert archive.read_bytes() == first
    # The same study anywhere gives the same bytes.
    archive.unlink()
    assert study("--archive", "kept/toy.zip") == 0 and len(order()) == 4
    with zipfile.ZipFile(archive) as packed:
        assert {entry.date_time for entry in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert archive.read_bytes() == first


def test_every_finished_run_is_in_the_archive_at_once_also_those_of_before(capsys):
    Path("stop_at").write_text("random-1")
    assert study("--archive", "toy.zip") == 1
    with zipfile.ZipFile("toy.zip") as packed:
        assert {name.split("/")[0] for name in packed.namelist()} == {"grpo-0", "random-0", "grpo-1"}
    Path("toy.zip").unlink()
    assert study("--archive", "toy.zip") == 1 and "random-1" in capsys.readouterr().err
    with zipfile.ZipFile("toy.zip") as packed:
        assert {name.split("/")[0] for name in packed.namelist()} == {"grpo-0", "random-0", "grpo-1"}
    # Only what the archive lacks is trained on the next machine.
    shutil.rmtree("out")
    Path("stop_at").unlink()
    assert study("--archive", "toy.zip") == 0
    assert runs() == ["random-1"]


def test_numbers_of_an_archive_are_finer_than_float32():
    assert study("--archive", "toy.zip") == 0
    file = Path("out/grpo-0/version_0/evaluations/shapes_3.jsonl")
    value = float(np.float32(0.3))
    row = {"id": "é", "set": "direct", "kind": "single", "picture": 1, "reward": value, "text": "a\nb", "none": None}
    file.write_text(json.dumps(row) + "\n")
    assert study("--archive", "toy.zip", "--out", "out", "--report-only") == 1  # other prompts than before
    shutil.rmtree("out")
    Path("toy.zip").rename("moved.zip")
    assert study("--archive", "moved.zip", "--report-only") == 1
    (read,) = read_rows(file).values()
    assert np.float32(read.pop("reward")) == np.float32(value)
    assert read == {key: kept for key, kept in row.items() if key != "reward"}


def test_an_archived_run_replaces_one_that_was_begun_here():
    assert study("--archive", "toy.zip") == 0
    shutil.rmtree("out")
    begun = Path("out/grpo-0/version_0/checkpoints")
    begun.mkdir(parents=True)
    run = runs_of(read_study("study.yaml"), Path("out"))[0]
    run.note(finished=False)
    assert study("--archive", "toy.zip") == 0
    assert order() == [] and begun.is_dir()
    assert run.finished() == run.home / "version_1"


def test_an_archive_of_other_settings_is_refused(capsys):
    assert study("--archive", "toy.zip") == 0
    Path("base.yaml").write_text("model: {rate: 1e-3}\n")
    assert study("--archive", "toy.zip", "--out", "new") == 1
    assert "toy.zip holds grpo-0 with other settings" in capsys.readouterr().err
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "cannot be read as an archive of runs"),
        ({"grpo-0/run.json": None}, "grpo-0 without a readable run.json"),
        ({"grpo-0/run.json": "[]"}, "grpo-0 with a run.json that is no record"),
        ({"grpo-0/run.json": "{}"}, "grpo-0 with a run.json that lacks its settings"),
        ({"grpo-0/results.json": "{"}, "grpo-0 without a readable results.json"),
        ({"grpo-0/results.json": '{"after": null}'}, "grpo-0 without a score after training"),
        ({"grpo-0/../../escaped.txt": "out"}, "grpo-0 with '../../escaped.txt', which is no file of a run"),
    ],
)
def test_a_broken_archive_is_told_and_nothing_trained(change, message, capsys, place):
    assert study("--archive", "toy.zip") == 0
    archive = Path("toy.zip")
    if change is None:
        archive.write_bytes(archive.read_bytes()[:500])
    else:
        with zipfile.ZipFile(archive) as packed:
            contents = {name: packed.read(name) for name in packed.namelist()} | change
        with zipfile.ZipFile(archive, "w") as packed:
            for name, content in contents.items():
                if content is not None:
                    packed.writestr(name, content)
    shutil.rmtree("out")
    assert study("--archive", "toy.zip") == 1
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=re.escape(message)):
        open_archive(archive, read_study("study.yaml"), Path("out"))
    assert not Path("out").exists() and not list(place.parent.rglob("escaped.txt"))


def test_a_report_of_an_archive_outlives_changes_of_the_configurations():
    assert study("--archive", "toy.zip") == 0
    plan, table = read_study("study.yaml"), Path("out/table.md").read_text()
    assert markdown(saved_report(plan, Path("toy.zip"))) == table
    Path("other.yaml").write_text("rewards: [another]\n")
    report = saved_report(plan, Path("toy.zip"))
    assert report.edited == ["random-0", "random-1"] and report.lines["direct"].gain["grpo"].mean == 50.0
    note = "Made with other settings than the configuration files have now: random-0, random-1.\n"
    assert note in markdown(report) and markdown(report).replace(note, "") == table
    # The files too, and again in the same folder.
    for _ in range(2):
        saved = open_archive(Path("toy.zip"), plan, Path("there"))
        assert [run.name for run in saved.runs] == ["grpo-0", "random-0", "grpo-1", "random-1"]
        files = compare(plan, saved.runs, Path("there"), edited=saved.edited)
        assert [file.name for file in files] == ["table.md", "table.json", "figure.png"]
        assert files[0].read_text() == markdown(report)
    # An option of the study counts as much as a configuration file.
    Path("study.yaml").write_text(STUDY.replace("trainer.max_steps: 3", "trainer.max_steps: 4"))
    saved = open_archive(Path("toy.zip"), read_study("study.yaml"), Path("elsewhere"))
    assert saved.edited == [run.name for run in saved.runs]


def test_a_report_of_an_archive_that_lacks_runs():
    plan = read_study("study.yaml")
    with pytest.raises(FileNotFoundError, match=r"there is no archive toy.zip"):
        saved_report(plan, Path("toy.zip"))
    Path("stop_at").write_text("random-1")
    assert study("--archive", "toy.zip") == 1
    report = saved_report(plan, Path("toy.zip"))
    assert report.missing == ["grpo-1", "random-1"] and report.seeds == [0] and report.edited == []
    # Of the runs that the report leaves out it does not tell that they are edited.
    Path("base.yaml").write_text("model: {rate: 1e-3}\n")
    assert saved_report(plan, Path("toy.zip")).edited == ["grpo-0", "random-0"]


def test_a_report_of_what_is_finished_names_what_is_not(capsys):
    assert study("--report-only") == 1
    assert "of the runs of toy none are finished" in capsys.readouterr().err
    Path("stop_at").write_text("grpo-0")
    assert study() == 1
    assert study("--report-only") == 1
    capsys.readouterr()
    Path("stop_at").write_text("random-0")
    assert study() == 1
    # One arm alone: no comparison, and the bar against the other one cannot be judged.
    assert study("--report-only") == 0
    table = json.loads(Path("out/table.json").read_text())
    assert table["missing"] == ["random-0", "grpo-1", "random-1"] and table["lines"]["direct"]["versus"] == {}
    assert [verdict["bar"]["versus"] for verdict in table["verdicts"]] == [None]
    Path("stop_at").write_text("random-1")
    assert study() == 1
    assert study("--report-only") == 0
    # grpo-1 is finished, but has nothing to be compared with.
    table = json.loads(Path("out/table.json").read_text())
    assert table["missing"] == ["grpo-1", "random-1"] and table["seeds"] == [0]
    assert "made without grpo-1, random-1" in Path("out/table.md").read_text()
    assert table["lines"]["direct"]["versus"]["grpo"]["random"]["mean"] == 50.0
    Path("stop_at").unlink()
    assert study() == 0
    whole = Path("out/table.json").read_text()
    assert json.loads(whole)["missing"] == []
    assert study("--report-only") == 0 and Path("out/table.json").read_text() == whole


@pytest.mark.parametrize("archive", sorted((ROOT / "data/shapes/studies").glob("*.zip")), ids=lambda file: file.stem)
def test_a_committed_archive_holds_its_study_as_it_stands(archive, monkeypatch, tmp_path):
    """Whoever changes a recipe keeps that of the saved runs in a file of its own, which the study names."""
    monkeypatch.chdir(ROOT)
    plan = read_study(f"configs/shapes/studies/{archive.stem}.yaml")
    saved = open_archive(archive, plan, tmp_path)
    assert not saved.edited, f"{archive.name} was made with other settings than {plan.name} has now: {saved.edited}"
    assert [run.name for run in saved.runs] == [run.name for run in runs_of(plan, tmp_path)]
