"""Answering: what is read and written is what `UnifiedPipeline.ask` reads and writes, and nothing is drawn."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from project.inference.pipeline import UnifiedPipeline
from project.tasks.answering import LETTER, Answering
from project.trajectory import Prompt, SampleKey
from tests.helpers.policies import dense_model
from tests.helpers.sampling import at, ode, roll, sde

CHOICES = {"choices": ["red", "green"], "answer": "A"}


def picture(prompt):
    """One of two pictures of unequal sizes, by the prompt's id."""
    side = 8 if prompt.id < "b" else 20
    return np.random.default_rng(side).integers(0, 255, (side, side, 3), dtype=np.uint8)


PROMPTS = [Prompt(id=name, text=text) for name, text in (("a1", "red circle"), ("a2", "two star ?"), ("b", "red"))]


def answered(model, prompts=PROMPTS, seed=0, **changes):
    keys = [SampleKey(seed=seed, update=-1, prompt=p.id) for p in prompts]
    task = Answering(**{"max_tokens": 5, "source": picture, **changes})
    (group,) = roll(task, model, prompts, keys, ode(4), None)
    return group


@pytest.mark.parametrize("think", [False, True])
def test_it_answers_as_the_pipeline_does(seeing_model, think):
    seeing_model.defaults = replace(seeing_model.defaults, ask_think_prompt="think")
    group = answered(seeing_model, think=think)
    pipe = UnifiedPipeline(seeing_model)
    pictures = [Image.fromarray(picture(prompt)) for prompt in PROMPTS]
    told = pipe.ask([p.text for p in PROMPTS], pictures, think=think, max_tokens=5)
    # The pipeline spells out control tokens, which only an untrained model writes.
    assert [t.reasoning for t in group.trajectories] == [re.sub(r"\s*<\|\w+\|>", "", text).strip() for text in told]
    assert len({t.reasoning for t in group.trajectories}) > 1, "every answer is the same: the test could not fail"


def test_a_trajectory_is_the_given_picture_and_a_text(seeing_model):
    group = answered(seeing_model)
    assert [t.prompt.id for t in group.trajectories] == ["a1", "a2", "b"] and group.size == 1
    for t in group.trajectories:
        assert not t.images and len(t.texts) == 1 and t.image is t.source and not t.stopped
    first, same, other = (t.source for t in group.trajectories)
    assert first is same and other.pixels_HWC.shape == (8, 8, 3), "as the autoencoder's transform resizes it"
    assert np.array_equal(first.pixels_HWC.numpy(), picture(PROMPTS[0]))
    assert set(group.metrics) == {"text/cut_off", "text/empty", "text/tokens"}


def test_the_vision_encoder_alone_sees_the_picture(seeing_model, monkeypatch):
    monkeypatch.setattr(seeing_model, "encode_image", lambda *_: pytest.fail("the autoencoder was asked"))
    seen = []
    append = seeing_model.append_picture
    monkeypatch.setattr(seeing_model, "append_picture", lambda c, pixels: seen.append(len(pixels)) or append(c, pixels))
    answered(seeing_model)
    assert seen == [2], "equal pictures are read once"


def test_choices_are_listed_with_their_letters(seeing_model, monkeypatch):
    read = []
    encode = seeing_model.encode_text
    monkeypatch.setattr(seeing_model, "encode_text", lambda text: read.append(text) or encode(text))
    asked = [replace(PROMPTS[0], columns=CHOICES), replace(PROMPTS[1], columns={"answer": "yes"})]
    answered(seeing_model, asked)
    assert read == [f"red circle\nA. red\nB. green\n{LETTER}", "two star ?"]
    read.clear()
    answered(seeing_model, asked, instruction=None)
    assert read == ["red circle", "two star ?"]


def test_answers_are_greedy_unless_told_otherwise(seeing_model):
    def texts(**changes):
        return [t.reasoning for t in answered(seeing_model, **changes).trajectories]

    assert texts(seed=1) == texts(seed=2)
    assert texts(seed=1, temperature=1.5) == texts(seed=1, temperature=1.5) != texts(seed=2, temperature=1.5)


def test_an_empty_share_of_a_rank_is_an_empty_group(seeing_model):
    class Idle:
        def share(self, number):
            return range(0)

    task = Answering(source=picture)
    (group,) = roll(task, seeing_model, PROMPTS, [at(0, -1)] * 3, ode(4), None, ranks=Idle())
    assert len(group) == 0


def test_it_is_for_evaluation(seeing_model):
    with pytest.raises(ValueError, match="it trains nothing"):
        roll(Answering(source=picture), seeing_model, PROMPTS, [at(0, 0)] * 3, sde(4), range(1))


def test_what_cannot_be_asked_is_found_before_the_work(tmp_path):
    with pytest.raises(ValueError, match=r"q.jsonl:2: prompt 'a' names no picture: give the row an `image`"):
        Answering().check([Prompt(id="a", text="t", place="q.jsonl:2")])
    with pytest.raises(ValueError, match="question 'a': its `choices`"):
        Answering(source=picture).check([Prompt(id="a", text="t", columns={"choices": "red", "answer": "red"})])
    for wrong in ({"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Answering(**wrong)


def test_a_model_without_a_vision_encoder_is_refused():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="no vision tower"):
        answered(dense_model())
