"""Editing: the source is read, resized where it must be, and what cannot be read is named."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from project.core.timing import Stopwatch
from project.samplers.flow_sde import FlowSDE
from project.samplers.guidance import Guidance
from project.tasks.comparing import Comparing
from project.tasks.editing import Editing, picture_in_file
from project.trajectory import Prompt, SampleKey


def task(**changes):
    guidance = Guidance(text=2.5, image=1.5, interval=(0.0, 1.0), renorm="text_channel")
    return Editing(**{"height": 8, "width": 8, "max_tokens": 4, "guidance": guidance, **changes})


def drawn(model, prompts, size=2, **changes):
    sampler = FlowSDE(6, window_size=2, window_range=(0, 4))
    keys = [SampleKey(seed=0, update=0, prompt=p.id, sample=g) for p in prompts for g in range(size)]
    (group,) = task(**changes).rollout(model, prompts, keys, sampler, sampler.window(0, 0), Stopwatch())
    return group, sampler


def test_a_file_is_edited_and_replayed(seeing_model, tmp_path, caplog):
    prompts = []
    for name, side in (("a", 8), ("b", 20)):
        Image.fromarray(np.random.default_rng(side).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
        prompts.append(Prompt(id=name, text="a red circle", image=str(tmp_path / f"{name}.png")))
    with caplog.at_level(logging.WARNING):
        group, sampler = drawn(seeing_model, prompts)
    assert "20x20 pixels is resized to 8x8" in caplog.text
    exact = np.array(Image.open(tmp_path / "a.png"))
    assert np.array_equal(group.trajectories[0].source.pixels_HWC.numpy(), exact)
    replay = task().replay(seeing_model, group.trajectories, sampler, context_gradient=True)
    image = replay.image_log_prob_RK - replay.old_image_log_prob_RK
    assert image.expm1().abs().max() <= 1e-6
    assert not torch.equal(group.trajectories[0].image.final_LD, group.trajectories[2].image.final_LD)


def test_the_picture_matters(seeing_model):
    def one(level):
        source = lambda prompt: np.full((8, 8, 3), level, dtype=np.uint8)  # noqa: E731
        return drawn(seeing_model, [Prompt(id="a", text="a red circle")], source=source)[0].trajectories[0]

    assert not torch.equal(one(10).image.final_LD, one(200).image.final_LD)


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"data.jsonl:3: prompt 'a' names no picture"):
        picture_in_file(Prompt(id="a", text="t", place="data.jsonl:3"))
    with pytest.raises(FileNotFoundError, match=r"data.jsonl:3: nowhere.png does not exist"):
        picture_in_file(Prompt(id="a", text="t", image="nowhere.png", place="data.jsonl:3"))
    with pytest.raises(ValueError, match=r"text.png is no picture"):
        picture_in_file(Prompt(id="a", text="t", image=str(tmp_path / "text.png")))


def test_every_picture_is_read_before_the_work(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:45])
    prompts = [
        Prompt(id=str(n), text="t", image=str(tmp_path / f"{name}.png"), place=f"data.jsonl:{n + 1}")
        for n, name in enumerate(["good", "good", "bad"])
    ]
    task().check(prompts[:2])
    with pytest.raises(ValueError, match=r"^data.jsonl:3: .*bad.png is no picture that can be read"):
        task().check(prompts)
    with pytest.raises(ValueError, match="prompt 'x' names no picture"):
        Comparing([task()]).check([*prompts[:2], Prompt(id="x", text="t")])
