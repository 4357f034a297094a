"""Evaluation of several benchmarks in one run: each has prompts and a task of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from project.__main__ import main
from project.judges.base import Judge
from project.training.evaluated import EvaluatedModule
from tests.helpers import ROOT
from tests.helpers.tiny_run import fit, write_world

# All that demo.yaml sets: where the class is the same, what is left out here would be taken from there.
GUIDANCE = {"text": 2.5, "interval": [0.0, 1.0]}
CANVAS = {"height": 64, "width": 64, "max_tokens": 4, "temperature": 0.0, "guidance": GUIDANCE}
DRAWING = {"class_path": "project.tasks.reasoning_t2i.ReasoningT2I", "init_args": CANVAS}
EDITING = {
    "class_path": "project.tasks.editing.Editing",
    "init_args": {**CANVAS, "source": "project.shapes.editing.rendered_source"},
}
BENCHMARKS = [
    {"class_path": "project.shapes.benchmark.ShapesBenchmark"},
    {"class_path": "project.shapes.editing_benchmark.ShapesEditingBenchmark"},
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def validate(world: Path, name: str, val: Any, task: Any, benchmarks: list[dict[str, str]] = BENCHMARKS) -> int:
    config = {
        "run": {"name": name, "root": str(world / "runs")},
        "benchmarks": benchmarks,
        "trainer": {"limit_val_batches": 1.0},
        "model": {"init_args": {"evaluation": {"task": task}}},
        "data": {"init_args": {"val": val, "eval_batch_size": 2}},
    }
    (world / f"{name}.yaml").write_text(yaml.safe_dump(config))
    files = [ROOT / "configs/shapes/demo.yaml", world / "tiny.yaml", world / f"{name}.yaml"]
    return main(["validate", *(f"--config={file}" for file in files)])


def test_each_benchmark_measures_its_own_prompts_by_its_own_task(world: Path) -> None:
    val = {
        "shapes": f"{ROOT}/data/shapes/eval.jsonl[:3]",
        "shapesediting": f"{ROOT}/data/shapes/edit.jsonl[:10:5]",
    }
    assert validate(world, "two", val, {"shapes": DRAWING, "shapesediting": EDITING}) == 0
    folder = world / "runs/two/version_0"
    rows = {
        name: [json.loads(line) for line in (folder / f"evaluations/{name}_0.jsonl").read_text().splitlines()]
        for name in val
    }
    assert [row["id"] for row in rows["shapes"]] == ["eval-direct-0000", "eval-direct-0001", "eval-direct-0002"]
    assert [row["id"] for row in rows["shapesediting"]] == ["eval-edit-0000", "eval-edit-0005"]
    after = json.loads((folder / "results.json").read_text())["after"]
    assert set(after) == {"shapes", "shapesediting"} and "changed" in after["shapesediting"]


def test_one_benchmark_among_several_measures_the_same_alone(world: Path) -> None:
    file = f"{ROOT}/data/shapes/eval.jsonl[:3]"
    assert validate(world, "alone", file, DRAWING, BENCHMARKS[:1]) == 0
    both = {"shapes": file, "shapesediting": f"{ROOT}/data/shapes/edit.jsonl[:1]"}
    assert validate(world, "beside", both, {"shapes": DRAWING, "shapesediting": EDITING}) == 0
    alone, beside = (world / f"runs/{name}/version_0/evaluations/shapes_0.jsonl" for name in ("alone", "beside"))
    assert alone.read_text() == beside.read_text()


def test_a_column_of_the_users_own_hides_no_prompt(world: Path) -> None:
    """A file may have columns named like what the project itself notes of a prompt."""
    row = json.loads((ROOT / "data/shapes/eval.jsonl").read_text(encoding="utf-8").splitlines()[0])
    (world / "own.jsonl").write_text(json.dumps({**row, "benchmark": "geneval", "padding": True}) + "\n")
    assert validate(world, "own", str(world / "own.jsonl"), DRAWING, BENCHMARKS[:1]) == 0
    rows = (world / "runs/own/version_0/evaluations/shapes_0.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in rows] == [row["id"]]


@pytest.mark.parametrize(
    ("val", "task", "message"),
    [
        ({"shapes": 1, "geneval": 1}, DRAWING, "has prompts for 'geneval', but the benchmarks of this run are shapes"),
        ({"shapes": 1}, {"shapes": DRAWING, "shapesediting": EDITING}, "name the same benchmarks in both"),
        ("all", {"shapes": DRAWING, "shapesediting": EDITING}, "give the data module a file for each benchmark"),
    ],
)
def test_names_that_do_not_fit_are_told(
    world: Path, capsys: pytest.CaptureFixture[str], val: Any, task: Any, message: str
) -> None:
    file = f"{ROOT}/data/shapes/eval.jsonl[:1]"
    given = dict.fromkeys(val, file) if isinstance(val, dict) else file
    assert validate(world, "wrong", given, task) != 0
    assert message in capsys.readouterr().err


def test_an_evaluation_that_nothing_measures_is_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    val = f"{ROOT}/data/shapes/eval.jsonl[:1]"
    assert validate(world, "unmeasured", val, DRAWING, []) == 1
    message = capsys.readouterr().err
    assert "`validate` would draw" in message and "nothing is measured" in message and "MeanReward" in message
    (world / "val.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"val": val}}}))
    more = ("--config", str(world / "val.yaml"), "--trainer.limit_val_batches=1.0")
    assert fit(world, "unmeasured_fit", "project.shapes.judge.DetectorJudge", *more) == 1
    assert "or leave data.init_args.val out" in capsys.readouterr().err


def test_who_looks_at_an_evaluation_measures_it() -> None:
    """Also a callback of a user's own."""

    class Looks(Callback):
        def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
            pass

    def checked(*callbacks: Callback) -> None:
        module = EvaluatedModule(None)
        trainer = Trainer(
            logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu",
            callbacks=[*callbacks],
        )  # fmt: skip
        module.trainer = trainer
        module.setup("validate")

    checked(Looks())
    with pytest.raises(ValueError, match="nothing is measured"):
        checked(Callback(), TQDMProgressBar())


class HalfAnswers(Judge):
    """Answers about every other picture."""

    name = "half"

    def preflight(self):
        pass

    def answer(self, images, questions, prompts):
        return [[0.5 if n % 2 else None] * len(asked) for n, asked in enumerate(questions)]


class Away(HalfAnswers):
    def preflight(self):
        raise ValueError("this judge is away")


def rewarded(judge: str) -> dict[str, Any]:
    asked = {"judge": {"class_path": f"tests.training.test_evaluated.{judge}"}}
    reward = {"class_path": "project.rewards.dvreward.DVReward", "init_args": asked}
    return {**BENCHMARKS[0], "init_args": {"reward": reward}}


def test_rewards_that_are_missing_are_told(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    val = f"{ROOT}/data/shapes/eval.jsonl[:4]"
    assert validate(world, "half", val, DRAWING, [rewarded("HalfAnswers")]) == 0
    after = json.loads((world / "runs/half/version_0/results.json").read_text())["after"]
    assert after["reward"] == 0.5 and after["reward_unanswered"] == 0.5
    assert "shapes: 2 of 4 prompts have no reward" in caplog.text


@pytest.mark.parametrize("wrong", ["questions", "judge"])
def test_what_evaluations_ask_is_checked_before_training(
    world: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    row = json.loads((ROOT / "data/shapes/eval.jsonl").read_text(encoding="utf-8").splitlines()[0])
    if wrong == "questions":
        row["semantic_questions"] = []
    (world / "one.jsonl").write_text(json.dumps(row) + "\n")
    config = {
        "trainer": {"limit_val_batches": 1.0, "num_sanity_val_steps": 0},
        "benchmarks": [rewarded("HalfAnswers" if wrong == "questions" else "Away")],
        "data": {"init_args": {"val": str(world / "one.jsonl")}},
    }
    (world / "late.yaml").write_text(yaml.safe_dump(config))
    assert fit(world, f"late_{wrong}", "project.shapes.judge.DetectorJudge", f"--config={world / 'late.yaml'}") == 1
    assert ("has no semantic question" if wrong == "questions" else "this judge is away") in capsys.readouterr().err
    assert not list((world / f"runs/late_{wrong}/version_0").glob("checkpoints/*"))
