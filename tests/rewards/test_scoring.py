"""Scores on their way: at once, or in a thread of their own."""

from __future__ import annotations

import math
import threading

import pytest
import torch

from project.core.errors import ScoringFailed
from project.core.metrics import Mean, Sum, values
from project.core.timing import Stopwatch
from project.judges.base import JudgeUnavailable
from project.rewards.base import Reward, RewardOutput
from project.rewards.scoring import Said, Scorer, joined
from project.trajectory import Group, Prompt, SampleKey, Trajectory
from tests.helpers.threads import on_ranks


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

    def score(self, trajectories):
        assert self.go.wait(10)
        self.threads.append(threading.current_thread().name)
        return RewardOutput(
            reward_N=torch.tensor([float(t.key.sample) for t in trajectories]), metrics={"m": Sum(value=1.0)}
        )


class Broken(Reward):
    def score(self, trajectories):
        raise RuntimeError("the judge is gone")


def test_drawing_goes_on_while_the_judge_works():
    reward = Slow()
    scorer = Scorer([reward], overlap=True)
    pending = [scorer(samples(2)), scorer(samples(4))]
    assert not any(future.done() for future in pending), "the call must not wait for the judge"
    reward.go.set()
    (output,) = joined([future.result(10) for future in pending]).outputs
    assert output.reward_N.tolist() == [0, 1, 0, 1, 2, 3]
    assert all(name.startswith("judge") for name in reward.threads)
    scorer.close()
    assert scorer.busy() > 0 and scorer.busy() == 0


def test_without_overlap_judging_is_a_phase():
    reward, stopwatch = Slow(), Stopwatch()
    reward.go.set()
    assert Scorer([reward], stopwatch=stopwatch)(samples(2)).done()
    assert reward.threads == [threading.current_thread().name]
    assert stopwatch.seconds["judge"] > 0


@pytest.mark.parametrize("overlap", [False, True])
def test_what_a_reward_raises_is_heard(overlap):
    with pytest.raises(RuntimeError, match="the judge is gone"):
        Scorer([Broken()], overlap=overlap)(samples(2)).result(10)


def test_metrics_of_parts_are_added_up_as_they_say():
    """A share over several parts is that of all that was counted, however unlike the parts are."""

    def part(number, metrics):
        output = RewardOutput(reward_N=torch.zeros(number), metrics=metrics, confidence_NQ=((None,),) * number)
        return Said(outputs=(output,), prompts=(Prompt(id="a", text="a"),) * number)

    calls, unanswered = Sum(value=2.0), Mean.over([True, False, False])
    (output,) = joined(
        [
            part(1, {"calls": calls, "unanswered": unanswered, "rare": Mean.over([None])}),
            part(3, {"calls": calls, "unanswered": Mean.over([True]), "rare": Mean.over([0.5])}),
            part(5, {"calls": calls, "rate_of_my_own": Sum(value=1.0), "never": Mean.over([])}),
        ]
    ).outputs
    assert values(output.metrics) == {"calls": 6.0, "unanswered": 0.5, "rare": 0.5, "rate_of_my_own": 1.0}
    assert len(output.confidence_NQ) == len(output.reward_N) == 9
    with pytest.raises(ValueError, match="nothing was scored"):
        joined([])


class Gone(Broken):
    """Away: each question would be waited for as long again."""

    asked = 0

    def score(self, trajectories):
        self.asked += 1
        raise JudgeUnavailable("nobody answers")


def test_once_the_judge_is_gone_what_is_queued_is_not_asked():
    gone = Gone()
    scorer = Scorer([gone], overlap=True)
    pending = [scorer(samples(2)) for _ in range(5)]
    for future in pending:
        with pytest.raises(JudgeUnavailable):
            future.result(10)
    assert gone.asked == 1


class Level(Reward):
    """The place in the group; within groups, less the group's mean."""

    def score(self, trajectories):
        return RewardOutput(
            reward_N=torch.tensor([float(t.key.sample) for t in trajectories]),
            metrics={"asked": Sum(value=float(len(trajectories)))},
        )

    def within_groups(self, output, prompts, group_size):
        reward_PG = output.reward_N.view(-1, group_size)
        return (reward_PG - reward_PG.mean(1, keepdim=True)).flatten()


def test_groups_are_compared_whole_though_ranks_have_parts_of_them():
    """2 groups of 4 on 3 ranks: 2, 3 and 3 samples."""
    everything = [*samples(4), *samples(4)]

    def collected(ranks):
        mine = [everything[n] for n in ranks.share(8)]
        scorer = Scorer([Level()], ranks=ranks)
        return scorer.collect(Group(trajectories=tuple(mine), size=4, pending=(scorer(mine[:2]), scorer(mine[2:]))))

    found = on_ranks(3, collected)
    assert [score for scores in found for score in scores.reward_N.tolist()] == [-1.5, -0.5, 0.5, 1.5] * 2
    assert [len(scores.reward_N) for scores in found] == [2, 3, 3]
    assert all(values(scores.metrics) == {"asked": 8.0} for scores in found), "metrics are those of all ranks"


class Drawn(Reward):
    """Numbers of all sizes that hang on the sample; one is not scored."""

    def __init__(self, seed, scale):
        super().__init__(weight=1.0)
        self.values_8 = scale * torch.randn(8, generator=torch.Generator().manual_seed(seed))
        self.values_8[5] = math.nan

    def score(self, trajectories):
        return RewardOutput(reward_N=self.values_8[[t.key.sample for t in trajectories]])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_rewards_are_normalised_in_whole_groups_though_ranks_have_parts_of_them(size):
    """2 groups of 4, to the last bit whatever the ranks."""
    everything = samples(8)

    def collected(ranks):
        mine = [everything[n] for n in ranks.share(8)]
        scorer = Scorer([Drawn(0, 1.0), Drawn(1, 1000.0)], ranks=ranks, floor=1e-4)
        group = Group(trajectories=tuple(mine), size=4, pending=(scorer(mine[:1]), scorer(mine[1:])))
        return scorer.collect(group)

    (alone,) = on_ranks(1, collected)
    found = on_ranks(size, collected)
    whole_N = torch.cat([scores.compared_N for scores in found])
    assert torch.equal(whole_N.nan_to_num(99.0), alone.compared_N.nan_to_num(99.0))
    assert whole_N.isnan().tolist() == [False] * 5 + [True] + [False] * 2
    assert whole_N[:4].sum().abs() < 1e-5 and whole_N[[4, 6, 7]].sum().abs() < 1e-5


def test_a_reward_that_fails_on_one_rank_ends_the_scoring_of_all():
    def collected(ranks):
        scorer = Scorer([Gone() if ranks.rank == 1 else Level()], ranks=ranks)
        try:
            scorer.collect(Group(trajectories=tuple(samples(2)), size=2, pending=(scorer(samples(2)),)))
        except ScoringFailed as error:
            return error
        return None

    errors = on_ranks(2, collected)
    assert [str(error) for error in errors] == [
        "the rewards of another rank failed: its message says why",
        "nobody answers",
    ]
    assert all(error.agreed for error in errors) and isinstance(errors[1], JudgeUnavailable)


def test_what_was_not_handed_to_be_scored_is_noticed():
    scorer = Scorer([Level()])
    with pytest.raises(ValueError, match="some samples were not scored"):
        scorer.collect(Group(trajectories=tuple(samples(3)), size=3, pending=(scorer(samples(2)),)))
