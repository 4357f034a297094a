"""All published benchmarks in one run of the embedded model, from the command line to `report`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from project.__main__ import main
from project.benchmarks.geneval.colors import CLIPColors
from project.benchmarks.geneval.mask2former import Mask2FormerDetector
from project.core.images import read_picture
from project.shapes.editing import rendered_source
from tests.helpers import ROOT, all_published
from tests.helpers.chat_server import ChatServer, shown
from tests.helpers.published_world import written
from tests.helpers.score_runs import results, rows_of

EDITING = ("gedit", "imgedit")
ASKED = {"geneval": 4, "geneval2": 3, "tiif": 2, "dpg": 4, "wise_verified": 6, "wise_legacy": 6, "gedit": 22}
ASKED |= {"imgedit": 2}
"""Pictures of each benchmark."""


@dataclass(frozen=True)
class World:
    folder: Path
    server: ChatServer
    arguments: dict[str, dict[str, Any]]

    def test(self, *options: str) -> int:
        """What a user runs: the demo's configuration and all benchmarks over it."""
        files = (ROOT / "configs/shapes/demo.yaml", self.folder / "all.yaml")
        configs = [part for file in files for part in ("--config", str(file))]
        return main(["test", *configs, f"--run.root={self.folder / 'runs'}", "--run.name=all", *options])

    def of(self, name: str) -> Path:
        """The folder of a benchmark."""
        (folder,) = (self.folder / "runs/all/benchmarks").glob(f"{name}-*")
        return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A run of all benchmarks with a round of refinement. Random weights would not pass GenEval's self-tests."""
    folder = tmp_path_factory.mktemp("all")
    with pytest.MonkeyPatch.context() as patch, ChatServer(writer=all_published.answer) as server:
        patch.setattr(Mask2FormerDetector, "preflight", lambda self: None)
        patch.setattr(CLIPColors, "preflight", lambda self: None)
        made = World(folder, server, all_published.write_all(folder, server.url))
        assert made.test("--model.init_args.evaluation.refine.rounds=1") == 0
        yield made


def test_every_benchmark_has_whole_results(world: World) -> None:
    for name, number in ASKED.items():
        said = results(world.of(name))
        assert said["pictures"] == {"asked": number, "judged": number, "missing": {}, "not_judged": {}}, name
        assert said["coverage"]["strict"]["missing"] == [] and said["headlines"]["official"] is not None, name
        assert len({row["sha256"] for row in rows_of(world.of(name))}) == number, f"{name}: pictures differ"
        assert (world.of(name) / "sheet.png").is_file() and (world.of(name) / "report.md").is_file()
    assert len(list((world.folder / "runs/all/benchmarks").iterdir())) == len(ASKED)


def option(key: str, value: Any) -> list[str]:
    return [f"--{key}", value if isinstance(value, str) else json.dumps(value)]


@pytest.mark.parametrize("name", ASKED)
def test_score_gives_the_same_figures_for_the_pictures(world: World, tmp_path: Path, name: str) -> None:
    arguments, drawn = world.arguments[name], world.of(name)
    kind = arguments["pictures"]["class_path"].rpartition(".")[2].removesuffix("Pictures").lower()
    own = [word for key, value in arguments["pictures"]["init_args"].items() for word in option(key, value)]
    where = ["--items", arguments["items"], "--pictures", str(drawn / "pictures"), "--out", str(tmp_path)]
    assert main(["score", "--benchmark", kind, *where, *own]) == 0
    again, said = results(tmp_path), results(drawn)
    for key in ("headlines", "official", "strict", "coverage", "benchmark"):
        assert again[key] == said[key], key
    assert rows_of(tmp_path) == [{k: v for k, v in row.items() if k != "reasoning"} for row in rows_of(drawn)]


def test_edits_start_from_their_source_and_are_guided_by_it(world: World) -> None:
    for name in EDITING:
        drawing = results(world.of(name))["manifest"]["drawing"]
        assert "Editing" in json.dumps(drawing["task"]), name
        (guidance,) = drawing["guidance"]
        assert "image 1.5" in guidance and "text_channel" in guidance
    (guidance,) = results(world.of("gedit"))["manifest"]["drawing"]["guidance"]
    assert guidance == "text 4, image 1.5, flow times 0.4 to 1, norm text_channel"
    # The judge was shown source and edited picture of the same edit.
    sources = {rendered_source(prompt).tobytes() for prompt in all_published.edited()}
    edited = {read_picture(file).tobytes() for file in world.of("gedit").rglob("fullset/**/*.png")}
    pairs = [pictures for body in world.server.bodies if "seed" in body and len(pictures := shown(body)[0]) == 2]
    of_gedit = [(source, after) for source, after in pairs if after.tobytes() in edited]
    assert len(of_gedit) >= ASKED["gedit"] and all(source.tobytes() in sources for source, _ in of_gedit)


def test_an_edit_looks_at_its_source(world: World) -> None:
    """Edits are nearer to their own source than to the others: the embedded model has learned to edit."""
    rows = {row["id"]: row for row in rows_of(world.of("gedit")) if row["id"].split("/")[1] == "en"}
    edits = [read_picture(world.of("gedit") / "pictures" / row["picture"]).astype(float) for row in rows.values()]
    groups = [name.split("/")[0] for name in rows]
    sources = [read_picture(world.folder / f"gedit/sources/{group}.png").astype(float) for group in groups]
    distances = np.array([[np.abs(edit - source).mean() for source in sources] for edit in edits])
    assert (distances.argmin(axis=1) == np.arange(len(edits))).mean() > 0.5


def test_only_pictures_from_texts_are_refined(world: World) -> None:
    for name, number in ASKED.items():
        rounds = results(world.of(name)).get("rounds", {})
        assert set(rounds) == (set() if name in EDITING else {"round1"}), name
        assert (world.of(name) / "round1").is_dir() == (name not in EDITING)
        if rounds:
            assert len(rows_of(world.of(name) / "round1")) == number


def test_a_report_over_the_folders_shows_every_benchmark(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(world.of(name)) for name in ASKED]
    assert main(["report", *folders, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for kind in ("geneval", "geneval2", "tiif", "dpg", "wise", "gedit", "imgedit"):
        assert f"\n# {kind}\n" in f"\n{text}"
    assert "Not comparable" in text and "edition is" in text, "the two editions of WISE"


def test_the_same_command_draws_and_asks_nothing_again(world: World) -> None:
    before = {file: file.stat().st_mtime_ns for name in ASKED for file in world.of(name).rglob("pictures/**/*.png")}
    asked = len(world.server.bodies)
    assert world.test("--model.init_args.evaluation.refine.rounds=1") == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before and len(world.server.bodies) == asked


@pytest.mark.slow
def test_two_ranks_give_the_same_rows(world: World, tmp_path: Path) -> None:
    """All but GenEval, whose tiny networks would not pass its self-tests in processes of their own."""
    settings = yaml.safe_load((world.folder / "all.yaml").read_text())
    settings["benchmarks"] = [one for one in settings["benchmarks"] if one["init_args"]["name"] != "geneval"]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(settings))
    configs = [f"--config={ROOT / 'configs/shapes/demo.yaml'}", f"--config={tmp_path / 'all.yaml'}"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--model.init_args.evaluation.refine.rounds=1"]
    command = [sys.executable, "-m", "project", "test", *configs, f"--run.root={tmp_path / 'runs'}", "--run.name=all"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    assert subprocess.run([*command, *two], cwd=ROOT, env=environment, timeout=400, check=False).returncode == 0
    there = World(tmp_path, world.server, world.arguments)
    for name in ASKED.keys() - {"geneval"}:
        assert written(there.of(name)) == written(world.of(name)), name


def test_two_benchmarks_of_one_name_are_refused(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = yaml.safe_load((world.folder / "all.yaml").read_text())
    both = [one for one in settings["benchmarks"] if one["init_args"]["name"].startswith("wise")]
    for one in both:
        del one["init_args"]["name"]
    assert len(both) == 2
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({**settings, "benchmarks": both}))
    assert World(tmp_path, world.server, {}).test() == 1
    assert "two benchmarks of this run are called 'wise'" in capfd.readouterr().err
    assert not (tmp_path / "runs/all/benchmarks").exists()
