"""The embedded world's benchmark on rendered pictures, with outcomes known beforehand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from project.benchmarks.base import flatten
from project.rewards.base import Reward, RewardOutput
from project.shapes.benchmark import KindMeans, ShapesBenchmark, names
from project.shapes.grammar import think
from project.shapes.mistakes import reflect
from project.shapes.renderer import render
from project.shapes.scenes import Object, Scene, sample_layout
from project.trajectory import Group, ImageSegment, Prompt, SampleKey, TextSegment, Trajectory

CIRCLE = Scene(objects=(Object(colour="red", shape="circle"),))
CROSSES = Scene(objects=(Object(colour="blue", shape="cross"),), count=3)
SIDE = Scene(objects=(Object(colour="red", shape="circle"), Object(colour="blue", shape="square")), relation="left of")
MIRRORED = Scene(objects=SIDE.objects[::-1], relation="right of")


def trajectory(scene: Scene, drawn: Scene, text: str, set_: str, name: str, padding: bool = False) -> Trajectory:
    """A prompt of `scene` whose picture shows `drawn`."""
    empty = torch.zeros(0)
    pixels = render(sample_layout(np.random.default_rng(0), drawn))
    columns = {"set": set_, "scene": scene.to_dict()}
    return Trajectory(
        prompt=Prompt(id=name, text="prompt", columns=columns, padding=padding),
        key=SampleKey(seed=0, update=0, prompt=name),
        segments=(
            TextSegment(ids_T=empty, log_prob_T=empty, entropy_T=empty, finished=True, text=text),
            ImageSegment(
                latents_KLD=empty,
                next_KLD=empty,
                step_K=empty,
                log_prob_K=empty,
                final_LD=empty,
                pixels_HWC=torch.from_numpy(np.array(pixels)),
            ),
        ),
    )


class Half(Reward):
    """0.5 for every sample, but not the first."""

    def score(self, trajectories: object) -> RewardOutput:
        return RewardOutput(reward_N=torch.tensor([torch.nan] + [0.5] * (len(trajectories) - 1)))  # type: ignore[arg-type]


def test_figures_of_known_outcomes() -> None:
    benchmark = ShapesBenchmark()
    group = Group(
        size=1,
        trajectories=(
            trajectory(CIRCLE, CIRCLE, think(CIRCLE), "direct", "a"),
            trajectory(CIRCLE, CROSSES, think(CROSSES), "direct", "b"),
            trajectory(CIRCLE, CROSSES, "", "direct", "c"),
            trajectory(SIDE, MIRRORED, "", "direct", "d"),
            trajectory(SIDE, SIDE, think(MIRRORED), "indirect", "e"),
            trajectory(CROSSES, CIRCLE, think(CIRCLE), "indirect", "f"),
            trajectory(CROSSES, CIRCLE, "", "indirect", "g", padding=True),
        ),
    )
    benchmark.update(group, [Half()])
    figures = benchmark.figures()
    # direct: kind single 1/3, kind relation 1/1, weighed evenly; indirect: relation right, count wrong.
    assert figures["direct"] == pytest.approx((1 / 3 + 1) / 2)
    assert figures["indirect"] == 0.5 and figures["reasoning"] == 0.5
    assert figures["second_opinion"] == pytest.approx({"direct": 2 / 3, "indirect": 0.5})
    assert figures["reward"] == 0.5
    assert "direct_heldout" not in figures and "reasoning_heldout" not in figures
    assert set(figures["by_kind"]) == {"single", "relation", "count"}
    assert figures["by_kind"]["relation"]["reasoning"] == 1.0
    assert figures["by_kind"]["single"]["direct"] == pytest.approx(1 / 3)
    assert flatten(figures, "shapes")["shapes/by_kind/count/reasoning"] == 0.0
    rewards = {outcome["id"]: outcome["reward"] for outcome in benchmark._outcomes[None]}
    assert rewards == {"a": None, "b": 0.5, "c": 0.5, "d": 0.5, "e": 0.5, "f": 0.5}


def test_reasoning_counts_in_any_wording() -> None:
    assert names(think(SIDE), SIDE) and names(think(MIRRORED), SIDE)
    assert not names(think(CIRCLE), SIDE) and not names("a red circle", CIRCLE) and not names("", CIRCLE)


def test_metric_adds_up_over_ranks() -> None:
    """What torchmetrics does to synchronise: sums of the states."""
    outcomes = [
        {"set": "direct", "kind": "pair", "picture": n % 2, "second_opinion": 0, "reasoning": 1, "reward": None}
        for n in range(6)
    ]
    ranks = [KindMeans(), KindMeans()]
    for n, outcome in enumerate(outcomes):
        ranks[n // 4].update(outcome)
    ranks[0].total_SMK += ranks[1].total_SMK
    ranks[0].count_SMK += ranks[1].count_SMK
    assert ranks[0].compute()["direct"] == 0.5 and "reward" not in ranks[0].compute()


def test_a_prompt_of_another_world_is_refused() -> None:
    alien = trajectory(CIRCLE, CIRCLE, "", "elsewhere", "z")
    with pytest.raises(ValueError, match=r"prompt 'z' has no scene or no set .*eval\.jsonl"):
        ShapesBenchmark().update(Group(trajectories=(alien,), size=1))


def test_rounds_are_measured_and_an_oracle_is_called_one() -> None:
    benchmark = ShapesBenchmark()
    before = Group(
        size=1,
        trajectories=(
            trajectory(CIRCLE, CIRCLE, "", "direct", "a"),
            trajectory(CIRCLE, CROSSES, "", "direct", "b"),
            trajectory(CIRCLE, CROSSES, "", "direct", "c"),
        ),
    )
    after = Group(
        size=1,
        label="round1",
        trajectories=(
            trajectory(CIRCLE, CROSSES, "", "direct", "a"),
            trajectory(CIRCLE, CIRCLE, "", "direct", "b"),
            trajectory(CIRCLE, CROSSES, "", "direct", "c"),
        ),
    )
    benchmark.update(before)
    benchmark.update(after)
    figures = benchmark.figures()
    assert figures["direct"] == figures["rounds"]["round1"]["direct"] == pytest.approx(1 / 3)
    assert figures["rounds"]["round1"]["oracle"]["direct"] == pytest.approx(2 / 3), "only the wrong ones are refined"
    assert [(row["picture"], row["picture@round1"]) for row in benchmark._rows()] == [(1, 0), (0, 1), (0, 0)]
    reflected = [dataclasses.replace(t, round=1) for t in after.trajectories]
    outcomes = benchmark.measure(reflected, [None] * 3)
    assert [outcome["reasoning"] for outcome in outcomes] == [None] * 3, "a reflection is no reasoning"
    benchmark.reset()
    benchmark.update(before)
    assert "rounds" not in benchmark.figures()


def test_a_refinement_tells_whether_it_kept_the_picture_and_spoke_true() -> None:
    first = trajectory(CIRCLE, CROSSES, think(CIRCLE), "direct", "a")
    truth = reflect(CIRCLE, sample_layout(np.random.default_rng(0), CROSSES))

    def refined(text: str | None, *, kept: bool) -> Trajectory:
        drawn = trajectory(CIRCLE, CIRCLE, text or "", "direct", "a")
        segments = () if text is None else drawn.segments[: 1 if kept else 2]
        return dataclasses.replace(drawn, segments=segments, source=first.image, round=1)

    said = [
        refined(truth, kept=False),
        refined("<think> nothing is wrong </think>", kept=True),
        refined(None, kept=True),
    ]
    rows = ShapesBenchmark().measure(said, [None] * 3)
    assert [(row["kept"], row["reflection"], row["picture"]) for row in rows] == [(0, 1, 1), (1, 0, 0), (1, None, 0)]
    assert not {"kept", "reflection"} & set(ShapesBenchmark().measure([first], [None])[0])
