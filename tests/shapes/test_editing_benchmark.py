"""The editing benchmark on rendered pictures, with outcomes known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from project.benchmarks.base import flatten
from project.shapes.editing_benchmark import EditMeans, ShapesEditingBenchmark
from project.shapes.renderer import render
from project.shapes.scenes import Layout, Object, Placed
from project.trajectory import Group, ImageSegment, Prompt, SampleKey, TextSegment, Trajectory

RED = Object(colour="red", shape="circle", size="large")
GREEN = Object(colour="green", shape="circle", size="large")
SMALL = Object(colour="red", shape="circle", size="small")
BLUE = Object(colour="blue", shape="square", size="large")


def layout(*things: Object | None, background: int = 0) -> Layout:
    cells = [thing and Placed(thing=thing) for thing in [*things, *[None] * (4 - len(things))]]
    return Layout(cells=(cells[0], cells[1], cells[2], cells[3]), background=background)


def trajectory(
    name: str, instruction: str, source: Layout, shown: Layout | np.ndarray, set_: str = "edit"
) -> Trajectory:
    pixels = render(shown) if isinstance(shown, Layout) else shown
    empty = torch.zeros(0)
    return Trajectory(
        prompt=Prompt(id=name, text=instruction, columns={"set": set_, "layout": source.to_dict()}),
        key=SampleKey(seed=0, update=0, prompt=name),
        segments=(
            TextSegment(ids_T=empty, log_prob_T=empty, entropy_T=empty, finished=True, text="<think>"),
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


def test_figures_of_known_outcomes() -> None:
    both, green = layout(RED, BLUE), "the circle is green"
    group = Group(
        size=1,
        trajectories=(
            trajectory("right", green, both, layout(GREEN, BLUE, background=2)),  # the tone does not count
            trajectory("copy", green, both, both),
            trajectory("moved", green, both, layout(BLUE, GREEN)),
            trajectory("unread", green, both, np.full((64, 64, 3), 128, np.uint8)),
            trajectory("small", "the circle is small", layout(RED), layout(SMALL)),
            trajectory(
                "beside", "the circle is left of the square", layout(BLUE, RED), layout(RED, BLUE), "edit_heldout"
            ),
        ),
    )
    benchmark = ShapesEditingBenchmark()
    benchmark.update(group)
    figures = benchmark.figures()
    outcomes = benchmark.measure(group.trajectories, [0.5] * 6)
    assert [(o["picture"], o["changed"], o["kept"], o["second_opinion"]) for o in outcomes] == [
        (1, 1, 1, 1),
        (0, 0, 1, 0),
        (0, 1, 0, 0),
        (0, 0, 0, 0),
        (1, 1, 1, 1),
        (1, 1, 1, 1),
    ]
    assert [o["kind"] for o in outcomes] == ["colour"] * 4 + ["size", "position"]
    assert {o["text"] for o in outcomes} == {"<think>"} and {o["reward"] for o in outcomes} == {0.5}
    # In the set "edit" 1 of 4 colours and 1 of 1 sizes: kinds weigh the same.
    assert figures["edit"] == pytest.approx((1 / 4 + 1) / 2)
    assert figures["changed"] == pytest.approx({"edit": (2 / 4 + 1) / 2, "edit_heldout": 1.0})
    assert figures["kept"] == pytest.approx({"edit": (2 / 4 + 1) / 2, "edit_heldout": 1.0})
    assert figures["second_opinion"] == pytest.approx({"edit": (1 / 4 + 1) / 2, "edit_heldout": 1.0})
    assert figures["edit_heldout"] == 1.0 and "edit_practised" not in figures and "reward" not in figures
    assert set(figures["by_kind"]) == {"colour", "size", "position"}
    assert flatten(figures, "shapesediting")["shapesediting/by_kind/colour/edit"] == 0.25


def test_the_reward_is_the_mean_over_sets() -> None:
    metric = EditMeans()
    outcome = {"kind": "size", "picture": 1, "changed": 1, "kept": 1, "second_opinion": None}
    for set_, rewards in (("edit", (0.2, 0.4, None)), ("edit_heldout", (0.9,))):
        for reward in rewards:
            metric.update({**outcome, "set": set_, "reward": reward})
    figures = metric.compute()
    assert figures["reward"] == pytest.approx((0.3 + 0.9) / 2) and "second_opinion" not in figures


@pytest.mark.parametrize(
    ("instruction", "set_", "message"),
    [
        ("a red circle", "edit", "prompt 'z' .* is no instruction"),
        ("the circle is green", "direct", r"prompt 'z' is of no set of edit, .*edit\.jsonl"),
    ],
)
def test_a_prompt_of_another_world_is_refused(instruction: str, set_: str, message: str) -> None:
    alien = trajectory("z", instruction, layout(RED), layout(RED), set_)
    with pytest.raises(ValueError, match=message):
        ShapesEditingBenchmark().update(Group(trajectories=(alien,), size=1))
