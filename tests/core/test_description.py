"""What a manifest says of a setting."""

from __future__ import annotations

import json
from functools import partial

import torch

from project.core.description import described
from project.samplers.guidance import Guidance
from project.samplers.schedule import Schedule
from project.tasks.reasoning_t2i import ReasoningT2I


def task(**guidance: float) -> ReasoningT2I:
    return ReasoningT2I(height=64, width=64, max_tokens=4, guidance=Guidance(**guidance))


def test_equal_settings_have_equal_descriptions_and_others_have_others() -> None:
    assert described(task()) == described(task())
    assert described(task(text=2.0)) != described(task())
    assert described(Schedule(num_steps=4)) != described(Schedule(num_steps=5))


def test_a_description_is_json_and_names_every_setting() -> None:
    said = json.loads(json.dumps(described(task(text=2.5))))
    assert said["class"] == "project.tasks.reasoning_t2i.ReasoningT2I"
    assert said["turn"]["canvas"]["guidance"]["text"] == 2.5
    assert said["turn"]["canvas"]["height"] == 64


def test_functions_are_named_and_tensors_are_told_apart() -> None:
    assert described(task) == f"{__name__}.task"
    assert described(partial(task, text=3.0)) == {"function": f"{__name__}.task", "args": [], "text": 3.0}
    assert described(torch.ones(2)) != described(torch.zeros(2))
    assert described({"b", "a"}) == ["a", "b"]
