"""The mean reward of an evaluation, overall and by tag, over all ranks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from project.__main__ import main
from project.benchmarks import mean_reward
from project.benchmarks.base import flatten
from project.benchmarks.mean_reward import MeanReward
from project.rewards.base import Reward, RewardOutput
from project.trajectory import Group, Prompt, Question, SampleKey, Scores, Trajectory
from tests.helpers import ROOT
from tests.helpers.tiny_run import fit, write_world

QUESTIONS = (
    Question(text="a cat ?", tag="Existence"),
    Question(text="a dog ?", tag="Existence"),
    Question(text="is it red ?", tag="Attribute"),
    Question(text="is it clean ?", kind="quality"),
)


def group(*asked: tuple[Question, ...]) -> Group:
    prompts = [Prompt(id=str(n), text="a cat", questions=questions) for n, questions in enumerate(asked)]
    return Group(
        trajectories=tuple(
            Trajectory(prompt=p, key=SampleKey(seed=0, update=-1, prompt=p.id), segments=()) for p in prompts
        ),
        size=1,
    )


class Told(Reward):
    """Says what it was told."""

    def __init__(self, rewards: list[float], confidences: list[tuple[float | None, ...]] | None = None) -> None:
        super().__init__()
        self.rewards, self.confidences = rewards, confidences

    def score(self, trajectories: Any, *_: Any) -> RewardOutput:
        said = None if self.confidences is None else tuple(self.confidences)
        return RewardOutput(reward_N=torch.tensor(self.rewards), confidence_NQ=said)


def test_figures_by_hand() -> None:
    benchmark = MeanReward()
    told = Told([0.5, torch.nan, 0.9], [(1.0, 0.0, 0.4, 0.8), (None, None, None, None), (0.9, None)])
    benchmark.update(group(QUESTIONS, QUESTIONS, QUESTIONS[1:3]), [told])
    figures = benchmark.figures()
    assert figures.pop("tag") == pytest.approx({"Existence": (0.5 + 0.9) / 2, "Attribute": 0.4})
    assert figures == pytest.approx({"reward": 0.7, "semantic": (1.4 / 3 + 0.9) / 2, "quality": 0.8})
    rows = {row["id"]: row for row in benchmark._rows()}
    assert rows["0"]["tag/Existence"] == 0.5 and rows["1"]["tag/Existence"] is None and rows["2"]["reward"]
    assert json.loads(json.dumps(rows)) == rows


def test_a_reward_without_questions_has_a_mean_too() -> None:
    benchmark = MeanReward()
    benchmark.update(group((), ()), [Told([0.25, 0.75])])
    assert benchmark.figures() == {"reward": 0.5}


def test_prompts_that_fill_up_a_batch_keep_others_answers_in_place() -> None:
    benchmark = MeanReward()
    drawn = group(QUESTIONS[:1], QUESTIONS[:1])
    first, second = drawn.trajectories
    filler = dataclasses.replace(first, prompt=dataclasses.replace(first.prompt, padding=True))
    scores = Scores(reward_N=torch.tensor([0.1, 0.9]), text_reward_N=torch.zeros(2), confidence_NQ=((0.2,), (0.8,)))
    benchmark.update(dataclasses.replace(drawn, trajectories=(filler, second), scores=scores))
    figures = flatten(benchmark.figures(), "m")
    assert figures == pytest.approx({"m/reward": 0.9, "m/semantic": 0.8, "m/tag/Existence": 0.8})


def test_its_figures_are_those_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks of unequal numbers of prompts, with tags that the other never met."""
    asked = [QUESTIONS[:1], QUESTIONS[:1], QUESTIONS[2:3]]
    alone, *ranks = (MeanReward() for _ in range(3))
    alone.update(group(*asked), [Told([0.0, 0.3, 0.9], [(0.1,), (0.3,), (0.7,)])])
    ranks[0].update(group(*asked[:2]), [Told([0.0, 0.3], [(0.1,), (0.3,)])])
    ranks[1].update(group(*asked[2:]), [Told([0.9], [(0.7,)])])
    expected = alone.figures()
    assert expected["reward"] == pytest.approx(0.4) and set(expected["tag"]) == {"Existence", "Attribute"}
    sent: list[Any] = []
    monkeypatch.setattr(mean_reward, "gather", lambda outcomes: sent.extend(outcomes) or outcomes)
    for rank in ranks:
        rank.figures()
    monkeypatch.setattr(mean_reward, "gather", lambda outcomes: sent)
    for rank in ranks:
        assert rank.figures() == expected


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def measuring(world: Path, **more: Any) -> tuple[str, str]:
    config = {
        "benchmarks": [{"class_path": "project.benchmarks.MeanReward"}],
        "trainer": {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None, "max_steps": 4},
        "data": {"init_args": {"val": f"{ROOT}/data/shapes/eval.jsonl[:5]", "eval_batch_size": 2}},
        **more,
    }
    (world / "measuring.yaml").write_text(yaml.safe_dump(config))
    return "--config", str(world / "measuring.yaml")


def test_a_run_measures_held_out_prompts_as_it_goes(world: Path) -> None:
    """As the recipes of BAGEL do: every n updates."""
    assert fit(world, "held_out", "project.shapes.judge.DetectorJudge", *measuring(world)) == 0
    folder = world / "runs/held_out/version_0"
    files = sorted((folder / "evaluations").iterdir())
    assert [file.name for file in files] == ["meanreward_2.jsonl", "meanreward_4.jsonl"]
    rows = [json.loads(line) for line in files[-1].read_text().splitlines()]
    after = json.loads((folder / "results.json").read_text())["after"]
    assert after["reward"] == pytest.approx(sum(row["reward"] for row in rows) / len(rows))
    assert after["tag"] and after.keys() >= {"semantic", "quality"}
    assert "meanreward/tag/" in (folder / "metrics.csv").read_text().splitlines()[0]
    before, last = (str(file) for file in files)
    assert main(["compare", "--before", before, "--after", last]) == 0


def test_without_a_reward_there_is_nothing_to_measure(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = (f"--config={ROOT}/configs/shapes/demo.yaml", f"--config={world}/tiny.yaml")
    where = f"--run.root={world}/runs"
    assert main(["validate", *files, *measuring(world, rewards=[], run={"name": "none"}), where]) == 1
    assert "MeanReward has no reward to measure" in capsys.readouterr().err
