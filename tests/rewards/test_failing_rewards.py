"""A reward that raises in the middle of training ends the run as a lost judge does: saved, named, it goes on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from project.__main__ import main
from project.judges.base import JudgeUnavailable
from project.rewards.base import Reward, RewardFailed, RewardOutput, score
from tests.helpers import ROOT, reward_functions, tiny_run

FUNCTION = "tests.helpers.reward_functions.fails_at"


class Raising(Reward):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def score(self, trajectories: Any) -> RewardOutput:
        raise self.error


def test_whatever_a_reward_raises_is_named() -> None:
    for error in (KeyError("x"), ValueError("x"), ZeroDivisionError("x"), RuntimeError("x")):
        with pytest.raises(RewardFailed, match=rf"reward Raising failed at .*{Path(__file__).name}:\d+: ") as caught:
            score([], [Raising(error)])
        assert type(error).__name__ in str(caught.value) and caught.value.__cause__ is error
    with pytest.raises(JudgeUnavailable, match=r"^gone$"):
        score([], [Raising(JudgeUnavailable("gone"))])
    with pytest.raises(torch.OutOfMemoryError):
        score([], [Raising(torch.OutOfMemoryError("x"))])


def test_a_metric_that_does_not_say_how_it_adds_up_is_refused() -> None:
    with pytest.raises(TypeError, match=r"metric 'm' is a float.*Mean or a Sum of project.core.metrics"):
        RewardOutput(reward_N=torch.zeros(1), metrics={"m": 1.0})  # type: ignore[dict-item]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.write_world(tmp_path_factory.mktemp("world"))


def fit(world: Path, name: str, *options: str) -> int:
    reward = {"class_path": "project.rewards.FunctionReward", "init_args": {"function": FUNCTION}}
    run = {"run": {"name": name, "root": str(world / "runs")}, "rewards": [reward]}
    (world / f"{name}.yaml").write_text(yaml.safe_dump(run))
    files = (ROOT / "configs/shapes/demo.yaml", world / "tiny.yaml", world / f"{name}.yaml")
    return main(["fit", *(part for file in files for part in ("--config", str(file))), *options])


def last(world: Path, name: str) -> dict[str, Any]:
    return torch.load(world / f"runs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("overlap", [[], ["--model.init_args.overlap=true"]])
def test_a_function_that_raises_ends_the_run_saved(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], overlap: list[str]
) -> None:
    monkeypatch.setattr(reward_functions, "calls", 0)
    monkeypatch.setattr(reward_functions, "failing", None)
    whole, name = f"whole_{len(overlap)}", f"failing_{len(overlap)}"
    assert fit(world, whole, *overlap) == 0
    per_update = reward_functions.calls // 5
    monkeypatch.setattr(reward_functions, "calls", 0)
    monkeypatch.setattr(reward_functions, "failing", 2 * per_update)  # in the third update
    capsys.readouterr()
    assert fit(world, name, *overlap) == 1
    message = capsys.readouterr().err.partition("error: ")[2]
    assert "Traceback" not in message
    assert f"reward {FUNCTION} failed at " in message and "reward_functions.py:" in message
    assert "KeyError: 'no such column'" in message and "Stopped after update 2" in message
    assert last(world, name)["updates"] == 2
    monkeypatch.setattr(reward_functions, "failing", None)
    (line,) = [line for line in message.splitlines() if "--ckpt_path" in line]
    assert main(shlex.split(line)[3:]) == 0
    one, two = last(world, name), last(world, whole)
    assert one["updates"] == two["updates"] == 5
    for key, tensor in one["state_dict"].items():
        assert torch.equal(tensor, two["state_dict"][key]), key
