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
from project.rewards.base import Reward, RewardFailed, RewardOutput, combined_in_groups, score
from project.rewards.dvreward import DVReward
from project.rewards.function import FunctionReward
from project.rewards.random import RandomReward
from project.trajectory import Prompt, Question
from tests.helpers import ROOT, reward_functions, tiny_run
from tests.helpers.mortal_judge import MortalJudge

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


class Odd(Reward):
    """Returns what it is given, or makes an output that is refused."""

    def __init__(self, returned: Any) -> None:
        super().__init__()
        self.returned = returned

    def score(self, trajectories: Any) -> RewardOutput:
        return self.returned() if callable(self.returned) else self.returned


class Odder(MortalJudge):
    def answer(self, images: Any, questions: Any, prompts: Any) -> Any:
        return [[2.0]] if self.calls else {}["nothing"]


def test_an_error_is_named_by_the_users_own_line(trajectory: Any) -> None:
    """Not by the line of this project that noticed it."""
    here = rf"{Path(__file__).name}:\d+"

    def made() -> RewardOutput:
        return RewardOutput(reward_N=torch.zeros(1), metrics={"m": 1.0})  # type: ignore[dict-item]

    asked = Prompt(id="a", text="a", questions=(Question(text="a?"),))
    for reward, message in (
        (Odd(1.0), rf"reward Odd failed: its score at .*{here} returned a float, not a RewardOutput"),
        (Odd(made), rf"reward Odd failed at .*{here}: TypeError: metric 'm'"),
        (DVReward(Odder(1)), rf"reward DVReward failed: judge 'mortal' at .*{here} gave a confidence outside"),
        (DVReward(Odder(0)), rf"reward DVReward failed at .*{here}: KeyError: 'nothing'"),
        (
            FunctionReward("tests.helpers.reward_functions.nothing"),
            r"failed: tests.*nothing at .*functions.py:\d+ gave",
        ),
    ):
        with pytest.raises(RewardFailed, match=message):
            score([trajectory(asked)], [reward])


def test_a_score_with_other_arguments_is_named() -> None:
    class Older(Reward):
        def score(self, trajectories: Any, group_size: int) -> RewardOutput:  # type: ignore[override]
            raise NotImplementedError

    with pytest.raises(
        RewardFailed, match=rf"its score at .*{Path(__file__).name}:\d+ cannot be called as score\(traj"
    ):
        score([], [Older()])


def test_rewards_that_are_no_tensor_or_too_few_are_named() -> None:
    class Few(Reward):
        def score(self, trajectories: Any) -> RewardOutput:
            return RewardOutput(reward_N=torch.zeros(1))

    with pytest.raises(
        RewardFailed, match=r"reward Few .* reward_N of shape \(1,\) for 2 samples: give one number for"
    ):
        score([None] * 2, [Few()])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="reward_N is a list: give a tensor"):
        RewardOutput(reward_N=[0.0])  # type: ignore[arg-type]


def test_too_few_rewards_within_groups_are_named() -> None:
    class Fewer(RandomReward):
        def within_groups(self, output: RewardOutput, prompts: Any, group_size: int) -> Any:
            return output.reward_N[:-1]

    output = RewardOutput(reward_N=torch.zeros(4))
    with pytest.raises(
        RewardFailed, match=rf"Fewer failed: its within_groups at .*{Path(__file__).name}:\d+ returned .*\(3,\) for 4"
    ):
        combined_in_groups([output], [Fewer()], [Prompt(id="a", text="a")] * 4, 2)


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
