"""`python -m project matrix`: one checkpoint with and without guidance, raw and averaged, round by round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.__main__ import main
from project.benchmarks.matrix import FIRST, Arm, read_arm, write_matrix
from tests.helpers import ROOT, published_world, tiny_run
from tests.helpers.score_runs import results, rows_of

ARMS = [("on", "raw"), ("on", "ema"), ("off", "raw"), ("off", "ema")]
EMA = [{"class_path": "project.callbacks.EMA", "init_args": {"decay": 0.5}}]


def in_this_process(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
    """What the command would run in a process of its own, without the seconds that a start takes."""
    assert command[:3] == [sys.executable, "-m", "project"] and not check
    return subprocess.CompletedProcess(command, main(command[3:]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates with averaged weights, and the table of questions."""
    folder = tmp_path_factory.mktemp("matrix")
    tiny_run.write_world(folder)
    options = ["--trainer.max_steps=2", f"--trainer.callbacks={json.dumps(EMA)}"]
    # Weights that move far enough for raw and averaged ones to be told apart by pictures.
    changes = {"model": {"init_args": {"trainable": {"parameter_groups": {"moe_gen|time_embedder": {"lr": 0.05}}}}}}
    (folder / "fast.yaml").write_text(yaml.safe_dump(changes))
    options.append(f"--config={folder / 'fast.yaml'}")
    assert tiny_run.fit(folder, "trained", "project.shapes.DetectorJudge", *options) == 0
    published_world.write_world(folder, items=3)
    settings = yaml.safe_load((folder / "benchmark.yaml").read_text())
    settings["trainer"]["callbacks"] = EMA
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(settings))
    return folder


def arguments(world: Path, out: Path, *options: str) -> list[str]:
    files = [ROOT / "configs/shapes/demo.yaml", world / "tiny.yaml", world / "fast.yaml", world / "benchmark.yaml"]
    configs = [part for file in files for part in ("--config", str(file))]
    checkpoint = ["--ckpt_path", str(world / "runs/trained/version_0/checkpoints/last.ckpt"), "--out", str(out)]
    return ["matrix", *configs, *checkpoint, *options]


def whole(world: Path, out: Path) -> list[str]:
    return arguments(world, out, "--guidance", "on", "off", "--weights", "raw", "ema", "--rounds", "1")


def folder_of(out: Path, guidance: str, weights: str) -> Path:
    (folder,) = (out / f"guidance_{guidance}-{weights}/benchmarks").iterdir()
    return folder


@pytest.fixture(scope="module")
def out(world: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("project.cli.commands.matrix.subprocess.run", in_this_process)
        assert main(whole(world, world / "matrix")) == 0
    return world / "matrix"


def test_the_table_holds_the_figures_of_the_folders(out: Path) -> None:
    said = json.loads((out / "matrix.json").read_text())
    assert [(arm["guidance"], arm["weights"]) for arm in said] == ARMS
    table = (out / "matrix.md").read_text().splitlines()
    heads = [cell.strip() for cell in table[0].strip("|").split("|")]
    assert heads == ["benchmark", "guidance", "weights", FIRST, "round1", "round1, oracle"]
    for arm, line in zip(said, table[2:6], strict=True):
        folder = folder_of(out, arm["guidance"], arm["weights"])
        first, again = results(folder), results(folder / "round1")
        oracle = first["rounds"]["round1"]["oracle"]["overall"]
        wanted = {FIRST: first["overall"], "round1": again["overall"], "round1, oracle": oracle}
        assert arm["benchmarks"] == {"dpg": wanted}
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells == ["dpg", arm["guidance"], arm["weights"], *(f"{100 * value:.2f}" for value in wanted.values())]
    assert "oracle: only the pictures that this benchmark calls wrong" in (out / "matrix.md").read_text()
    assert (out / "matrix.png").read_bytes().startswith(b"\x89PNG")


def test_every_arm_is_drawn_as_it_says(out: Path) -> None:
    pictures = {}
    for guidance, weights in ARMS:
        folder = folder_of(out, guidance, weights)
        drawing = results(folder)["manifest"]["drawing"]
        assert drawing["weights"] == weights and drawing["updates"] == 2
        assert (drawing["guidance"][0] == "none") == (guidance == "off")
        pictures[guidance, weights] = {row["sha256"] for row in rows_of(folder)}
    assert len(set.union(*pictures.values())) == sum(map(len, pictures.values())), "no arm draws what another draws"


def test_the_same_command_goes_on(world: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("project.cli.commands.matrix.subprocess.run", in_this_process)
    drawn = {file: file.stat().st_mtime_ns for file in out.rglob("pictures/**/*.png")}
    before = (out / "matrix.json").read_text()
    lost = folder_of(out, "off", "ema") / "round1/rows.jsonl"
    lost.unlink()
    assert main(whole(world, out)) == 0
    assert len(drawn) == len(ARMS) * 2 * 6 and {file: file.stat().st_mtime_ns for file in drawn} == drawn
    assert (out / "matrix.json").read_text() == before and lost.is_file()


def test_averaged_weights_need_the_callback(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("project.cli.commands.matrix.subprocess.run", in_this_process)
    assert main(arguments(world, tmp_path, "--weights", "ema", "--set", "trainer.callbacks=[]")) == 1
    said = capfd.readouterr().err
    assert "no callback averages weights: name project.callbacks.EMA under trainer.callbacks, or take raw" in said
    assert "the test with guidance_on-ema ended with exit code 1" in said and "Traceback" not in said
    assert not list(tmp_path.rglob("*.png"))


def test_fewer_rounds_than_none_are_refused(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(world, tmp_path, "--rounds", "-1")) == 1
    assert "--rounds -1: give 0 or more" in capfd.readouterr().err


@pytest.mark.slow
def test_arms_in_processes_of_their_own_are_the_same(
    world: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    assert main(whole(world, tmp_path)) == 0
    assert (tmp_path / "matrix.json").read_text() == (out / "matrix.json").read_text()


# --------------------------------------------------------------------------- its parts


def write_results(folder: Path, overall: float | None, **rounds: float) -> None:
    folder.mkdir(parents=True)
    of_rounds = {name: {"overall": value, "oracle": {"overall": value + 0.1}} for name, value in rounds.items()}
    found: dict[str, Any] = {"benchmark": "wise", "overall": overall, "rounds": of_rounds}
    (folder / "results.json").write_text(json.dumps(found))


def test_the_newest_results_of_every_benchmark_are_read(tmp_path: Path) -> None:
    for n, (name, overall) in enumerate([("wise_legacy-0a1b", 0.1), ("wise_legacy-9f9f", 0.2), ("wise-77aa", None)]):
        write_results(tmp_path / "benchmarks" / name, overall, **({"round1": 0.5} if n == 1 else {}))
        os.utime(tmp_path / "benchmarks" / name / "results.json", (1000 + n, 1000 + n))
    write_results(tmp_path / "benchmarks/wise_legacy-9f9f/round1", 0.5)
    legacy = {FIRST: 0.2, "round1": 0.5, "round1, oracle": 0.6}
    assert read_arm(tmp_path) == {"wise_legacy": legacy, "wise": {FIRST: None}}


def test_an_arm_without_published_benchmarks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"configs/benchmarks/all.yaml"):
        read_arm(tmp_path)


def test_what_an_arm_lacks_stays_empty(tmp_path: Path) -> None:
    on, off = Arm(guidance="on", weights="raw"), Arm(guidance="off", weights="raw")
    table = write_matrix(tmp_path, {on: {"dpg": {FIRST: 0.5, "round1": 0.75}}, off: {"dpg": {FIRST: None}}})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[2] == ["dpg", "on", "raw", "50.00", "75.00"]
    assert rows[3] == ["dpg", "off", "raw", "-", "-"] and "oracle" not in table
