"""Scores on their way: at once, or in a thread of their own."""

from __future__ import annotations

import threading

import pytest
import torch

from project.core.metrics import Mean, Sum, values
from project.core.timing import Stopwatch
from project.judges.base import JudgeUnavailable
from project.rewards.base import Reward, RewardOutput
from project.rewards.scoring import Scorer, joined
from project.trajectory import Prompt, SampleKey, Scores, Trajectory


def samples(number):
    prompt = Prompt(id="a", text="a")
    return [
        Trajectory(prompt=prompt, key=SampleKey(seed=0, update=0, prompt="a", sample=n), segments=())
        for n in range(number)
    ]


class Slow(Reward):
    """Scores when it is allowed to; notes its thread."""

    def __init__(self):
        super().__init__()
        self.go, self.threads = threading.Event(), []

    def score(self, trajectories, group_size):
        assert self.go.wait(10)
        self.threads.append(threading.current_thread().name)
        return RewardOutput(
            reward_N=torch.tensor([float(t.key.sample) for t in trajectories]), metrics={"m": Sum(value=1.0)}
        )


class Broken(Reward):
    def score(self, trajectories, group_size):
        raise RuntimeError("the judge is gone")


def test_drawing_goes_on_while_the_judge_works():
    reward = Slow()
    scorer = Scorer([reward], overlap=True)
    pending = [scorer(samples(2), 2), scorer(samples(4), 2)]
    assert not any(future.done() for future in pending), "the call must not wait for the judge"
    reward.go.set()
    scores = joined([future.result(10) for future in pending])
    assert scores.reward_N.tolist() == [0, 1, 0, 1, 2, 3]
    assert all(name.startswith("judge") for name in reward.threads)
    scorer.close()
    assert scorer.busy() > 0 and scorer.busy() == 0


def test_without_overlap_judging_is_a_phase():
    reward, stopwatch = Slow(), Stopwatch()
    reward.go.set()
    assert Scorer([reward], stopwatch=stopwatch)(samples(2), 2).done()
    assert reward.threads == [threading.current_thread().name]
    assert stopwatch.seconds["judge"] > 0


@pytest.mark.parametrize("overlap", [False, True])
def test_what_a_reward_raises_is_heard(overlap):
    with pytest.raises(RuntimeError, match="the judge is gone"):
        Scorer([Broken()], overlap=overlap)(samples(2), 2).result(10)


def test_metrics_of_parts_are_added_up_as_they_say():
    """A share over several parts is that of all that was counted, however unlike the parts are."""

    def part(number, metrics):
        zeros = torch.zeros(number)
        return Scores(reward_N=zeros, text_reward_N=zeros, metrics=metrics, confidence_NQ=((None,),) * number)

    calls, unanswered = Sum(value=2.0), Mean.over([True, False, False])
    scores = joined(
        [
            part(1, {"calls": calls, "unanswered": unanswered, "rare": Mean.over([None])}),
            part(3, {"calls": calls, "unanswered": Mean.over([True]), "rare": Mean.over([0.5])}),
            part(5, {"calls": calls, "rate_of_my_own": Sum(value=1.0), "never": Mean.over([])}),
        ]
    )
    assert values(scores.metrics) == {"calls": 6.0, "unanswered": 0.5, "rare": 0.5, "rate_of_my_own": 1.0}
    assert len(scores.confidence_NQ) == len(scores.reward_N) == 9
    with pytest.raises(ValueError, match="nothing was scored"):
        joined([])


class Gone(Broken):
    """Away: each question would be waited for as long again."""

    asked = 0

    def score(self, trajectories, group_size):
        self.asked += 1
        raise JudgeUnavailable("nobody answers")


def test_once_the_judge_is_gone_what_is_queued_is_not_asked():
    gone = Gone()
    scorer = Scorer([gone], overlap=True)
    pending = [scorer(samples(2), 2) for _ in range(5)]
    for future in pending:
        with pytest.raises(JudgeUnavailable):
            future.result(10)
    assert gone.asked == 1
