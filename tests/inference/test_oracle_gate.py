"""`generate --gate oracle` with a published benchmark: it refines what the benchmark calls wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from project.__main__ import main
from project.benchmarks.pictures.dpg import DPGPictures
from project.benchmarks.pictures.gedit import GEditPictures
from project.benchmarks.published import PublishedBenchmark
from project.inference.refinement import BenchmarkCritic
from project.judges.openai.free_text_judge import OpenAIFreeTextJudge
from project.trajectory import Prompt
from tests.helpers import all_published, chat_server
from tests.helpers.chat_server import ChatServer
from tests.helpers.published_world import PatchyJudge
from tests.helpers.score_runs import results

ITEMS = 8
SILENT = 1
"""The prompt that the judge does not answer about."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    all_published.write_dpg(folder, all_published.drawn()[:ITEMS])
    (folder / "prompts.txt").write_text("".join(f"{prompt.text}\n" for prompt in all_published.drawn()[:ITEMS]))
    return folder


def generate(world: Path, out: Path, judge: str, *options: str, prompts: str = "prompts.txt") -> int:
    """What a user writes: the benchmark by dotted options."""
    words = ["--checkpoint", "data/shapes/umm", "--prompts", str(world / prompts), "--out", str(out)]
    words += ["--num-steps", "6", "--image-guidance", "1", "--rounds", "1", "--gate", "oracle"]
    words += ["--benchmark", "project.benchmarks.PublishedBenchmark", "--benchmark.items", str(world / "dpg_bench.csv")]
    words += ["--benchmark.pictures", "project.benchmarks.DPGPictures", "--benchmark.pictures.samples", "1"]
    return main(["generate", *words, "--benchmark.pictures.judge", judge, *options])


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "trajectories.jsonl").read_text().splitlines()]


def test_what_the_benchmark_calls_wrong_is_drawn_again(world: Path, tmp_path: Path) -> None:
    assert generate(world, tmp_path / "out", "project.shapes.DetectorJudge") == 0
    rows = rows_of(tmp_path / "out")
    pictures = tmp_path / "first"
    pictures.mkdir()
    for n, row in enumerate(rows):
        (pictures / f"item{n}.png").symlink_to(tmp_path / "out" / row["rounds"][0]["file"])
    items = ["--items", str(world / "dpg_bench.csv"), "--pictures", str(pictures), "--out", str(tmp_path / "scores")]
    judge = ["--judge", "project.shapes.DetectorJudge", "--samples", "1"]
    assert main(["score", "--benchmark", "dpg", *items, *judge]) == 0
    verdicts = [json.loads(line) for line in (tmp_path / "scores/verdicts.jsonl").read_text().splitlines()]
    right = [verdict["worth"] == 1 for verdict in verdicts]
    assert set(right) == {True, False}, results(tmp_path / "scores")
    for row, is_right in zip(rows, right, strict=True):
        assert row["gate"] == "oracle" and row["rounds"][0]["score"] == float(is_right)
        assert row["rounds"][1]["kept"] == is_right


def test_what_it_could_not_judge_has_no_score_and_stays(world: Path, tmp_path: Path) -> None:
    silent = all_published.drawn()[SILENT].text
    judge = "tests.helpers.published_world.PatchyJudge"
    assert generate(world, tmp_path, judge, "--benchmark.pictures.judge.silent", silent) == 0
    row = rows_of(tmp_path)[SILENT]
    assert [one["score"] for one in row["rounds"]] == [None, None] and row["rounds"][1]["kept"]
    assert rows_of(tmp_path)[0]["rounds"][0]["score"] in (0.0, 1.0)


def test_prompts_that_are_no_items_are_refused_at_once(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (world / "others.txt").write_text("a cat\n")
    assert generate(world, tmp_path, "project.shapes.DetectorJudge", prompts="others.txt") == 1
    assert "prompt 'a cat' is none of " in capfd.readouterr().err and not list(tmp_path.glob("*.png"))


def test_a_judge_that_does_not_work_is_found_before_anything_is_drawn(world: Path) -> None:
    class Broken(PatchyJudge):
        def preflight(self) -> None:
            raise ValueError("the judge is asleep: wake it")

    benchmark = PublishedBenchmark(DPGPictures(Broken(), samples=1), str(world / "dpg_bench.csv"))
    with pytest.raises(ValueError, match="asleep"):
        BenchmarkCritic(benchmark, [Prompt(id="0", text=all_published.drawn()[0].text)])


def test_an_instruction_of_several_edits_is_refused(tmp_path: Path) -> None:
    items = all_published.write_gedit(tmp_path)
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    text = rows[0]["instruction"]
    rows[2]["instruction"] = text
    items.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with ChatServer() as server:
        judge = chat_server.client(OpenAIFreeTextJudge, server.url)
        benchmark = PublishedBenchmark(GEditPictures(judge), str(items))
        with pytest.raises(ValueError, match=r"that of several edits \(background_change/en/a, color_alter/en/a\)"):
            BenchmarkCritic(benchmark, [Prompt(id="0", text=text)])
        other = Prompt(id="0", text=rows[4]["instruction"])
        assert benchmark.items.of(other).id == "material_alter/en/a"
        assert {benchmark.items.of(prompt).id for prompt in benchmark.own_prompts} == set(benchmark.items.by_id)
