"""Refinement at inference: rounds, gates, and what is written of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from project.__main__ import main
from project.data.prompts import read_prompts
from project.inference.generation import GenerationSettings, generate
from project.inference.pipeline import PipelineOutput
from project.inference.refinement import BenchmarkCritic, Critic, JudgeCritic, Refinement, refine, strip
from project.models.base import Defaults
from project.samplers.guidance import Guidance
from project.shapes.benchmark import ShapesBenchmark
from project.shapes.judge import DetectorJudge
from project.shapes.renderer import render
from project.shapes.scenes import Scene, sample_layout
from project.trajectory import Prompt

import numpy as np  # isort: skip

PROMPTS = [Prompt(id=str(n), text=f"prompt {n}") for n in range(3)]
EVAL = "data/shapes/eval.jsonl"


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (level, level, level))


class Level(Critic):
    """The grey level / 100; nothing for black."""

    def __init__(self) -> None:
        self.asked = 0

    def scores(self, prompts, images):
        self.asked += len(images)
        return [image.getpixel((0, 0))[0] / 100 or None for image in images]


class Brighter:
    """Adds 10 levels; says that nothing is wrong with pictures of 50."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[int]]] = []

    def __call__(self, texts, images, noise):
        levels = [image.getpixel((0, 0))[0] for image in images]
        self.calls.append((list(texts), levels))
        assert len(noise) == len(texts) == len(images)
        said = ["<think> Nothing is wrong </think>" if level == 50 else "<think> too dark </think>" for level in levels]
        return PipelineOutput(images=[grey(level + 10) for level in levels], texts=said)


def refined(levels, refinement):
    redraw = Brighter()
    images = [grey(level) for level in levels]
    noise = {}

    def generator(place, number):
        noise[place, number] = torch.Generator()
        return noise[place, number]

    rounds = refine(redraw, "look at {prompt}", PROMPTS, images, ["a", None, "c"], refinement, generator)
    shown = [[(r.image.getpixel((0, 0))[0], r.kept) for r in path] for path in rounds]
    return shown, rounds, redraw


def test_without_a_gate_every_picture_is_refined_until_nothing_is_wrong():
    shown, rounds, redraw = refined([10, 40, 50], Refinement(rounds=2))
    assert shown == [
        [(10, False), (20, False), (30, False)],
        [(40, False), (50, False), (50, True)],
        [(50, False), (50, True), (50, True)],
    ]
    assert redraw.calls[0][0] == [f"look at prompt {n}" for n in range(3)]
    assert redraw.calls[1][1] == [20, 50], "each round looks at the picture of the round before"
    assert rounds[2][1].text is not None and rounds[2][2].text is None
    assert all(r.score is None for path in rounds for r in path)


def test_a_gate_refines_what_is_doubted_and_leaves_the_unscored():
    critic = Level()
    shown, rounds, _ = refined([10, 40, 0], Refinement(rounds=2, gate="judge", critic=critic, below=0.15))
    assert [len([r for r in path if not r[1]]) for path in shown] == [2, 1, 1]
    assert [r.score for r in rounds[0]] == [0.1, 0.2, 0.2] and rounds[2][2].score is None
    assert critic.asked == 3 + 1


def test_scores_without_a_gate_are_kept():
    _, rounds, _ = refined([10, 20, 30], Refinement(rounds=1, critic=Level()))
    assert [[r.score for r in path] for path in rounds] == [[0.1, 0.2], [0.2, 0.3], [0.3, 0.4]]


@pytest.mark.parametrize(("wording", "expected"), [(None, "usual: prompt 0"), ("look at {prompt}", "look at prompt 0")])
def test_the_wording_is_said_beside_the_picture(wording, expected):
    said = []

    def pipe(texts, images=None, **_):
        said.append((texts[0], images is not None))
        return PipelineOutput(images=[grey(10)], texts=["a"])

    settings = GenerationSettings(
        defaults=Defaults(reflect_prompt="usual: {prompt}"),
        drawing=Guidance(),
        editing=Guidance(),
        refinement=Refinement(rounds=1, wording=wording),
    )
    assert len(list(generate(pipe, PROMPTS[:1], settings))) == 1
    assert said == [("prompt 0", False), (expected, True)]


def test_a_gate_needs_someone_who_decides():
    with pytest.raises(ValueError, match="--gate judge needs --judge"):
        Refinement(rounds=1, gate="judge")
    with pytest.raises(ValueError, match="--gate oracle needs --benchmark"):
        Refinement(rounds=1, gate="oracle")
    with pytest.raises(ValueError, match="0 or more"):
        Refinement(rounds=-1)
    with pytest.raises(ValueError, match=r"write \{prompt\}"):
        Refinement(rounds=1, wording="look again")


def test_critics_of_the_embedded_world():
    prompt = read_prompts(EVAL)[0]
    scene = Scene.from_dict(prompt.columns["scene"])
    right = Image.fromarray(render(sample_layout(np.random.default_rng(0), scene)))
    wrong = Image.new("RGB", (64, 64), "white")
    oracle, judge = BenchmarkCritic(ShapesBenchmark(), [prompt]), JudgeCritic(DetectorJudge(), [prompt])
    assert oracle.scores([prompt, prompt], [right, wrong]) == [1.0, 0.0]
    high, low = judge.scores([prompt, prompt], [right, wrong])
    assert high > 0.9 and low < 0.5
    with pytest.raises(ValueError, match="no semantic question"):
        JudgeCritic(DetectorJudge(), PROMPTS)


def test_a_strip_shows_every_round():
    _, rounds, _ = refined([10, 20, 30], Refinement(rounds=2))
    picture = strip(rounds[0], gap=2)
    assert picture.size == (3 * 4 + 2 * 2, 4)
    assert [picture.getpixel((x, 0))[0] for x in (0, 4, 6, 12)] == [10, 255, 20, 30]


@pytest.mark.parametrize("gate", ["none", "judge", "oracle"])
def test_the_command_keeps_every_round(tmp_path, gate):
    lines = Path(EVAL).read_text().splitlines(keepends=True)
    rows = [lines[n] for n in (0, 300, 600)]
    (tmp_path / "prompts.jsonl").write_text("".join(rows))
    arguments = ["--checkpoint", "data/shapes/umm", "--prompts", f"{tmp_path}/prompts.jsonl", "--num-steps", "4"]
    arguments += ["--rounds", "2", "--image-guidance", "1", "--gate", gate, "--wording", "look again: {prompt}"]
    arguments += {
        "none": [],
        "judge": ["--judge", "project.shapes.judge.DetectorJudge"],
        "oracle": ["--benchmark", "project.shapes.benchmark.ShapesBenchmark"],
    }[gate]
    for out in ("one", "two"):
        assert main(["generate", *arguments, "--out", str(tmp_path / out)]) == 0
    written = [json.loads(line) for line in (tmp_path / "one" / "trajectories.jsonl").read_text().splitlines()]
    assert len(written) == 3 and all(row["gate"] == gate and len(row["rounds"]) == 3 for row in written)
    assert all(row["wording"] == "look again: {prompt}" for row in written)
    for row in written:
        last = row["rounds"][-1]["file"]
        assert (tmp_path / "one" / row["file"]).read_bytes() == (tmp_path / "one" / last).read_bytes()
        assert (row["rounds"][0]["score"] is None) == (gate == "none")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    assert (tmp_path / "one" / "0000_strip.png").is_file()
