"""Editing: the source is read, resized where it must be, and what cannot be read is named."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from project.__main__ import main
from project.samplers.guidance import Guidance
from project.tasks.comparing import Comparing
from project.tasks.editing import Editing, picture_in_file
from project.trajectory import Prompt, SampleKey
from tests.helpers.sampling import at, roll, sde


def task(**changes):
    guidance = Guidance(text=2.5, image=1.5, interval=(0.0, 1.0), renorm="text_channel")
    return Editing(**{"height": 8, "width": 8, "max_tokens": 4, "guidance": guidance, **changes})


def drawn(model, prompts, size=2, **changes):
    sampler = sde(6, 2, (0, 4))
    keys = [SampleKey(seed=0, update=0, prompt=p.id, sample=g) for p in prompts for g in range(size)]
    (group,) = roll(task(**changes), model, prompts, keys, sampler, sampler.steps(at(0, 0)))
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


@pytest.mark.parametrize("where", ["train", "val"])
def test_fit_reads_every_picture_before_it_loads_a_model(tmp_path, capsys, where):
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    asked = [{"question": "is the circle blue ?", "tag": "Existence"}]
    row = {"prompt": "the circle is blue", "image": "good.png", "semantic_questions": asked}
    (tmp_path / "good.jsonl").write_text("".join(json.dumps({**row, "id": n}) + "\n" for n in range(4)))
    (tmp_path / "bad.jsonl").write_text((tmp_path / "good.jsonl").read_text() + json.dumps({**row, "image": "bad.png"}))
    source = "project.tasks.editing.picture_in_file"
    files = {name: tmp_path / ("bad.jsonl" if name == where else "good.jsonl") for name in ("train", "val")}
    data = {**{name: str(file) for name, file in files.items()}, "prompts_per_update": 2}
    policy = {"init_args": {"directory": str(tmp_path / "no checkpoint")}}
    task = {"init_args": {"source": source}}
    config = {
        "model": {"init_args": {"policy": policy, "task": task, "evaluation": {"task": task}}},
        "data": {"init_args": data},
    }
    (tmp_path / "files.yaml").write_text(yaml.safe_dump(config))
    configs = ["configs/shapes/demo.yaml", "configs/shapes/editing.yaml", str(tmp_path / "files.yaml")]
    arguments = [argument for file in configs for argument in ("--config", file)]
    assert main(["fit", *arguments, f"--run.root={tmp_path}/runs"]) == 1
    said = capsys.readouterr().err
    assert f"error: {tmp_path}/bad.jsonl:5: {tmp_path}/bad.png is no picture that can be read" in said
