"""The benchmark's verdict as a reward, with a known share of wrong verdicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from project.benchmarks.as_reward import BenchmarkReward
from project.data.prompts import read_prompts
from project.shapes.benchmark import ShapesBenchmark
from project.shapes.renderer import render
from project.shapes.scenes import Scene, sample_layout
from project.tasks.editing import given_picture
from project.trajectory import SampleKey, Trajectory


def shown(number, right):
    rng = np.random.default_rng(0)
    made = []
    for n, prompt in enumerate(read_prompts("data/shapes/eval.jsonl")[:number]):
        scene = Scene.from_dict(prompt.columns["scene"])
        pixels = render(sample_layout(rng, scene)) if right else np.full((64, 64, 3), n % 200, dtype=np.uint8)
        key = SampleKey(seed=0, update=0, prompt=prompt.id)
        made.append(Trajectory(prompt=prompt, key=key, segments=(given_picture(pixels),)))
    return made


def test_right_is_one_and_wrong_is_nought():
    reward = BenchmarkReward(ShapesBenchmark())
    assert reward.score(shown(20, right=True)).reward_N.eq(1).all()
    assert reward.score(shown(20, right=False)).reward_N.eq(0).all()


def test_the_share_of_flips_is_the_one_that_was_asked_for():
    reward = BenchmarkReward(ShapesBenchmark(), flips=0.2)
    samples = shown(400, right=False)
    verdicts = reward.score(samples).reward_N
    assert verdicts.mean().item() == pytest.approx(0.2, abs=0.06)
    assert torch.equal(reward.score(samples[::-1]).reward_N, verdicts.flip(0)), "keyed by picture and prompt"


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"share in \[0, 0.5\)"):
        BenchmarkReward(ShapesBenchmark(), flips=0.5)
    benchmark = ShapesBenchmark()
    benchmark.right = None
    with pytest.raises(ValueError, match="tells no right pictures"):
        BenchmarkReward(benchmark)
