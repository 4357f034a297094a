"""`PublishedBenchmark`: drawn by the policy, judged meanwhile, the same however the run came about."""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from project.__main__ import main
from project.benchmarks.as_reward import BenchmarkReward
from project.benchmarks.pictures.dpg import DPGPictures
from project.benchmarks.protocol import GuidanceChange
from project.benchmarks.published import PublishedBenchmark
from project.samplers.guidance import Guidance
from project.tasks.editing import given_picture
from project.trajectory import Prompt, SampleKey, Trajectory
from tests.helpers import ROOT, published_world
from tests.helpers.published_world import PatchyJudge, command, found, write_world, written

PATCHY = "tests.helpers.published_world.PatchyJudge"
ITEMS, SAMPLES = 4, 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("published"), ITEMS)


@pytest.fixture(scope="module")
def whole(world: Path) -> Path:
    """The folder of an unbroken run."""
    assert main(command(world, "whole")) == 0
    return found(world, "whole")


@pytest.fixture
def here(tmp_path: Path, world: Path) -> Path:
    """The same world in a folder of its own."""
    for file in world.iterdir():
        if file.name != "runs":
            (tmp_path / file.name).symlink_to(file)
    return tmp_path


def results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def same(one: Path, other: Path) -> bool:
    """Whether pictures and rows are the same, byte for byte."""
    a, b = written(one), written(other)
    differ = sorted(name for name in {**a, **b} if a.get(name) != b.get(name))
    assert not differ, f"{differ} differ"
    return bool(a)


def start(arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
    # With other numbers of threads the last digits differ.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen([sys.executable, "-m", "project", *arguments], env=environment, cwd=ROOT, **options)


def test_what_is_drawn_is_scored_as_the_score_command_scores_it(whole: Path, world: Path, tmp_path: Path) -> None:
    said = results(whole)
    assert said["pictures"] == {"asked": ITEMS * SAMPLES, "judged": ITEMS * SAMPLES, "missing": {}, "not_judged": {}}
    items = ["--items", str(world / "dpg_bench.csv"), "--pictures", str(whole / "pictures")]
    judge = ["--judge", "project.shapes.DetectorJudge", "--samples", str(SAMPLES)]
    assert main(["score", "--benchmark", "dpg", *items, *judge, "--out", str(tmp_path / "scores")]) == 0
    again = results(tmp_path / "scores")
    assert {mode: again[mode] for mode in ("official", "strict")} == {m: said[m] for m in ("official", "strict")}
    sizes = {Image.open(file).size for file in (whole / "pictures").rglob("*.png")}
    assert sizes == {(64, 64)} and 0 < said["strict"]["overall"] < 1
    assert len({row["sha256"] for row in rows_of(whole)}) == ITEMS * SAMPLES, "samples of an item differ"


def test_a_result_says_how_it_was_made(whole: Path, world: Path) -> None:
    drawing = results(whole)["manifest"]["drawing"]
    assert drawing["size"] == "64x64" and drawing["points"] == 6 and drawing["seed"] == 0
    assert drawing["guidance"] == ["text 2.5, flow times 0 to 1, norm global"]
    assert drawing["weights"] == "raw" and drawing["checkpoint"] is None
    assert "data/shapes/umm" in json.dumps(drawing["policy"])
    assert (whole / "sheet.png").is_file() and "sheet.png" in (whole / "report.md").read_text()


def test_what_is_done_is_not_done_again(here: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(command(here, "mine")) == 0
    folder = found(here)
    assert same(folder, whole)
    caplog.clear()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.png") if file.name != "sheet.png"}
    assert main(command(here, "mine")) == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert "| overall" in caplog.text, "its table is shown all the same"
    one = next(iter(before))
    one.unlink()
    assert main(command(here, "mine")) == 0
    assert same(folder, whole), "the batch of the lost picture is drawn again, whole"


def killed_and_gone_on(here: Path, times: int, seed: int) -> Path:
    """A run that is killed at random points, as far apart as the pictures and rows that it has written then."""
    rng = random.Random(seed)
    home = here / "runs/mine/benchmarks"
    for goal in sorted(rng.sample(range(1, 2 * ITEMS * SAMPLES - 1), times)):
        process = start(command(here, "mine", "--model.init_args.evaluation.refine.rounds=1"))
        while process.poll() is None:
            pictures = sum(1 for file in home.rglob("*.png") if file.name != "sheet.png")
            if pictures >= goal:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(command(here, "mine", "--model.init_args.evaluation.refine.rounds=1")) == 0
    return found(here)


@pytest.fixture(scope="module")
def refined(world: Path) -> Path:
    assert main(command(world, "refined", "--model.init_args.evaluation.refine.rounds=1")) == 0
    return found(world, "refined")


def test_a_run_that_was_killed_goes_on_to_the_same_rows(here: Path, refined: Path) -> None:
    assert same(killed_and_gone_on(here, times=1, seed=0), refined)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_five_kills_at_random_points_change_nothing(here: Path, refined: Path, seed: int) -> None:
    assert same(killed_and_gone_on(here, times=5, seed=seed), refined)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_two_ranks_equal_one(here: Path, whole: Path, strategy: str) -> None:
    two = ["--trainer.devices=2", f"--trainer.strategy={strategy}", "--trainer.accelerator=cpu"]
    assert start(command(here, "mine", *two)).wait(timeout=300) == 0
    assert same(found(here), whole)


def test_rounds_are_judged_and_the_oracle_goes_on_with_the_wrong_ones(refined: Path) -> None:
    first = {(row["id"], row["sample"]): row for row in rows_of(refined)}
    after = {(row["id"], row["sample"]): row for row in rows_of(refined / "round1")}
    assert first.keys() == after.keys()
    said = results(refined)["rounds"]["round1"]
    assert said["overall"] == results(refined / "round1")["overall"]
    items = DPGPictures(PatchyJudge(), samples=SAMPLES)
    read = items.read_items(Path(results(refined)["manifest"]["items_file"]))
    by_id = {item.id: item for item in read.items}
    chosen = [a if items.worth(by_id[key[0]], a) == 1 else after[key] for key, a in first.items()]
    assert said["oracle"]["overall"] == items.score(read.items, chosen, "official").headline
    report = (refined / "report.md").read_text()
    assert "overall, oracle" in report and "oracle: only the pictures that this benchmark calls wrong" in report


def test_one_item_that_nobody_judges_fails_the_run_and_shrinks_nothing(
    here: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "benchmark.yaml").unlink()
    word = json.loads((whole / "verdicts.jsonl").read_text().splitlines()[0])["prompt"]
    published_world.write_benchmark(here, PATCHY, {"silent": word})
    assert main(command(here, "mine")) == 1
    said = results(found(here))
    assert said["coverage"]["strict"]["missing"] == ["item0"]
    assert set(said["pictures"]["not_judged"]) == {"item0/0", "item0/1"}
    assert said["coverage"]["strict"] == {"expected": ITEMS, "scored": ITEMS - 1, "missing": ["item0"], "dropped": []}
    assert "item0" in capfd.readouterr().err
    published_world.write_benchmark(here, PATCHY, {"silent": word}, allow_missing=True)
    assert main(command(here, "mine")) == 0


def test_a_judge_that_is_away_ends_the_run_saved(here: Path, whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "benchmark.yaml").unlink()
    published_world.write_benchmark(here, PATCHY, {"calls": 1})
    assert main(command(here, "mine")) == 1
    assert "give the same command again" in capfd.readouterr().err
    assert len(rows_of(found(here))) == 4, "the first batch"
    published_world.write_benchmark(here, PATCHY)
    assert main(command(here, "mine")) == 0
    assert same(found(here), whole)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_judge_that_one_rank_loses_ends_all_ranks(here: Path, whole: Path, strategy: str) -> None:
    """Batches of 4 of 8 pictures and one of padding: one rank asks once, the other twice."""
    (here / "benchmark.yaml").unlink()
    published_world.write_table(here / "five.csv", 5)
    published_world.write_benchmark(here, PATCHY, {"calls": 1}, items=str(here / "five.csv"))
    two = ["--trainer.devices=2", f"--trainer.strategy={strategy}", "--trainer.accelerator=cpu"]
    assert start(command(here, "mine", *two)).wait(timeout=300) == 1
    assert 4 <= sum(len(file.read_text().splitlines()) for file in found(here).glob("rows*.jsonl")) <= 8
    published_world.write_benchmark(here, PATCHY, items=str(here / "five.csv"))
    assert start(command(here, "mine", *two)).wait(timeout=300) == 0
    assert len(rows_of(found(here))) == 5 * SAMPLES


def test_other_settings_have_another_folder(here: Path, whole: Path) -> None:
    assert main(command(here, "mine", "--model.init_args.evaluation.seed=1")) == 0
    other = found(here)
    assert other.name != whole.name
    assert {row["sha256"] for row in rows_of(other)}.isdisjoint(row["sha256"] for row in rows_of(whole))


EXAMPLES = {"class_path": "project.shapes.ShapesExamples", "init_args": {"batches": 4, "batch_size": 2}}


@pytest.mark.parametrize("data", [{"init_args": {}}, EXAMPLES], ids=["prompts", "examples"])
def test_other_prompts_are_left_to_other_benchmarks(here: Path, whole: Path, data: dict[str, Any]) -> None:
    settings = yaml.safe_load((here / "benchmark.yaml").read_text())
    settings["benchmarks"].append({"class_path": "project.shapes.ShapesBenchmark"})
    settings["data"] = copy.deepcopy(data)
    settings["data"]["init_args"] |= {"eval_batch_size": 4, "val": f"{ROOT / 'data/shapes/eval.jsonl'}[::520]"}
    (here / "benchmark.yaml").unlink()
    (here / "benchmark.yaml").write_text(yaml.safe_dump(settings))
    assert main(command(here, "mine", subcommand="validate")) == 0
    assert same(found(here), whole)
    assert len((here / "runs/mine/version_0/evaluations/shapes_0.jsonl").read_text().splitlines()) == 5


def test_unguided_pictures_differ(here: Path, whole: Path) -> None:
    assert main(command(here, "mine", "--model.init_args.evaluation.guided=false")) == 0
    assert results(found(here))["manifest"]["drawing"]["guidance"] == ["none"]
    assert rows_of(found(here)) != rows_of(whole)


def test_training_is_measured_on_a_fixed_subset(here: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(TensorBoardLogger, "log_metrics", lambda self, metrics, step=None: shown.extend(metrics))
    (here / "benchmark.yaml").unlink()
    published_world.write_benchmark(here, "project.shapes.DetectorJudge", every=2)
    options = ["--trainer.max_steps=1", "--model.init_args.num_generations=2", "--data.init_args.prompts_per_update=2"]
    options += ["--trainer.num_sanity_val_steps=-1", "--trainer.val_check_interval=1"]
    reward = ["--rewards", json.dumps([{"class_path": "project.rewards.RandomReward"}])]
    assert main(command(here, "mine", *options, *reward, subcommand="fit")) == 0
    run = here / "runs/mine/version_0"
    assert [row["id"] for row in rows_of(run / "evaluations/dpg_0")] == ["item0"] * 2 + ["item2"] * 2
    assert (run / "evaluations/dpg_1/results.json").is_file()
    scores = results(run)
    assert scores["before"]["overall"] == results(run / "evaluations/dpg_0")["overall"]
    assert "dpg/overall" in shown and "dpg/strict/overall" in shown


def test_a_gate_asks_the_rewards_which_must_be_able_to_score_the_prompts(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = ["--model.init_args.evaluation.refine.rounds=1", "--model.init_args.evaluation.refine.gate=0.5"]
    assert main(command(here, "mine", *gate)) == 1
    assert "no semantic question, which DVReward needs" in capfd.readouterr().err
    assert not (here / "runs/mine/benchmarks").exists()
    judge = {"class_path": "project.shapes.DetectorJudge"}
    holistic = {"judge": judge, "instruction": "is there {prompt} ?"}
    rewards = json.dumps([{"class_path": "project.rewards.HolisticReward", "init_args": holistic}])
    assert main(command(here, "mine", *gate, f"--rewards={rewards}")) == 0
    folder = found(here)
    said = {row["id"]: row["worth"] for row in map(json.loads, (folder / "verdicts.jsonl").read_text().splitlines())}
    pictures = sorted((folder / "pictures").rglob("*.png"))
    after = [folder / "round1" / file.relative_to(folder) for file in pictures]
    kept = [np.array_equal(Image.open(a), Image.open(b)) for a, b in zip(pictures, after, strict=True)]
    assert any(kept) and not all(kept) and 0 < sum(said.values()) < len(said), "some were good enough"


# --------------------------------------------------------------------------- as a reward


def trajectory(text: str, picture: np.ndarray) -> Trajectory:
    key = SampleKey(seed=0, update=0, prompt=text)
    return Trajectory(prompt=Prompt(id=text, text=text), key=key, segments=(given_picture(picture),))


def test_its_verdict_is_a_reward_and_what_is_not_judged_is_masked(world: Path, whole: Path) -> None:
    verdicts = [json.loads(line) for line in (whole / "verdicts.jsonl").read_text().splitlines()]
    samples = [trajectory(row["prompt"], np.array(Image.open(whole / "pictures" / row["picture"]))) for row in verdicts]
    judge = PatchyJudge(silent=verdicts[0]["prompt"])
    benchmark = PublishedBenchmark(DPGPictures(judge, samples=SAMPLES), str(world / "dpg_bench.csv"))
    reward = BenchmarkReward(benchmark, outcome="worth").score(samples).reward_N
    assert reward[:SAMPLES].isnan().all()
    assert torch.allclose(reward[SAMPLES:], torch.tensor([row["worth"] for row in verdicts[SAMPLES:]]))
    right = BenchmarkReward(benchmark).score(samples).reward_N[SAMPLES:]
    assert right.tolist() == [float(row["worth"] == 1) for row in verdicts[SAMPLES:]]


def test_a_reward_refuses_prompts_that_are_no_items(world: Path) -> None:
    benchmark = PublishedBenchmark(DPGPictures(PatchyJudge()), str(world / "dpg_bench.csv"))
    with pytest.raises(ValueError, match=r"is none of .*dpg_bench.csv"):
        BenchmarkReward(benchmark).check([Prompt(id="1", text="a cat")])


def test_a_protocol_changes_only_what_it_says() -> None:
    changed = GuidanceChange(interval=(0.0, 1.0))(Guidance(text=3.0, image=2.0, renorm="channel"))
    assert changed == Guidance(text=3.0, image=2.0, renorm="channel", interval=(0.0, 1.0))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"items": "nowhere.csv"}, "nowhere.csv"),
        ({"every": 0}, "every=0"),
        ({"limit": 0}, "limit=0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_drawn(
    here: Path, change: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "benchmark.yaml").unlink()
    published_world.write_benchmark(here, "project.shapes.DetectorJudge", **change)
    assert main(command(here, "mine")) in (1, 2)
    assert message in capfd.readouterr().err
    assert not (here / "runs/mine/benchmarks").exists()
