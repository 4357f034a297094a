"""The prompt's likelihood given the picture, by a unified model: against a slow reading token by token."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from project.core.metrics import values
from project.models.bagel.source import BagelCheckpoint
from project.models.transforms import normalise
from project.rewards.random import RandomReward
from project.rewards.self_likelihood import SelfLikelihood
from project.shapes.grammar import DESCRIBE, describe
from project.shapes.renderer import render
from project.shapes.scenes import KINDS, sample_layout
from project.shapes.split import sample_scene_of
from project.training.sharding import shard
from project.trajectory import Prompt, Trajectory
from tests.helpers.backbones import NewDenseModel
from tests.helpers.tiny_module import make_module, train

EMBEDDED = BagelCheckpoint("data/shapes/umm")


def drawn(trajectory: Any, text: str, picture: np.ndarray) -> Trajectory:
    made = trajectory(Prompt(id=text, text=text))
    image = dataclasses.replace(made.segments[-1], pixels_HWC=torch.from_numpy(picture.copy()))
    return dataclasses.replace(made, segments=(image,))


@pytest.fixture(scope="module")
def scenes() -> list[tuple[str, np.ndarray]]:
    """Descriptions, and pictures of what they describe."""
    rng = np.random.default_rng(0)
    sampled = [sample_scene_of(rng, KINDS[n % len(KINDS)], "seen") for n in range(20)]
    return [(describe(scene), render(sample_layout(rng, scene))) for scene in sampled]


@pytest.fixture(scope="module")
def reward() -> SelfLikelihood:
    return SelfLikelihood(policy=EMBEDDED, instruction=DESCRIBE)


@torch.no_grad()
def slowly(text: str, picture: np.ndarray | None, instruction: str) -> float:
    """Token by token: each is read, and the next one's probability looked up."""
    model = EMBEDDED.load()
    ids = model.encode_text(text)
    total = 0.0
    for n in range(len(ids)):
        context = model.static_context(1, 400)
        if picture is not None:
            context = model.append_picture(context, [normalise(torch.from_numpy(picture.copy())[None])[0]])
        if instruction:
            context = model.append_text(context, [model.encode_text(instruction)])
        start = torch.tensor([[model.special.text_start, *ids[:n].tolist()]])
        query, _ = model._token_query(context, start, torch.ones_like(start, dtype=torch.bool), logits="last")
        total += torch.log_softmax(model(query, [context]).logits.float(), -1)[0, ids[n]].item()
    return total / len(ids)


@pytest.mark.parametrize("instruction", [DESCRIBE, ""])
def test_it_is_the_mean_over_the_prompts_tokens(trajectory: Any, scenes: Any, instruction: str) -> None:
    samples = [drawn(trajectory, text, picture) for text, picture in scenes[1:4]]
    seen = SelfLikelihood(policy=EMBEDDED, instruction=instruction).score(samples).reward_N
    gain = SelfLikelihood(policy=EMBEDDED, instruction=instruction, baseline="no_picture").score(samples).reward_N
    for n, (text, picture) in enumerate(scenes[1:4]):
        expected = slowly(text, picture, instruction)
        assert seen[n].item() == pytest.approx(expected, abs=1e-4)
        assert gain[n].item() == pytest.approx(expected - slowly(text, None, instruction), abs=1e-4)


def test_a_picture_of_the_prompt_makes_it_probable(trajectory: Any, scenes: Any, reward: SelfLikelihood) -> None:
    """The right picture of each prompt against the pictures of the others."""
    right = reward.score([drawn(trajectory, text, picture) for text, picture in scenes]).reward_N
    others = [drawn(trajectory, text, scenes[(n + 7) % 20][1]) for n, (text, _) in enumerate(scenes)]
    assert (right > reward.score(others).reward_N).float().mean() > 0.9


def test_equal_pictures_are_read_once_in_any_batch(trajectory: Any, scenes: Any, reward: SelfLikelihood) -> None:
    samples = [drawn(trajectory, text, picture) for text, picture in scenes[:5]] * 2
    whole = reward.score(samples)
    small = SelfLikelihood(policy=EMBEDDED, instruction=DESCRIBE, batch_size=2)
    asked: list[int] = []
    plain = small.mean_log_probs
    small.mean_log_probs = lambda prompts, images: asked.append(len(prompts)) or plain(prompts, images)  # type: ignore
    torch.testing.assert_close(small.score(samples).reward_N, whole.reward_N, atol=1e-5, rtol=1e-5)
    assert asked == [2, 2, 1]
    assert values(whole.metrics)["likelihood/prompt"] == pytest.approx(whole.reward_N.mean().item(), abs=1e-6)
    assert reward.score([]).reward_N.shape == (0,)


def test_loading_moves_no_randomness_and_the_copy_is_frozen() -> None:
    before = torch.random.get_rng_state()
    fresh = SelfLikelihood(policy=EMBEDDED)
    fresh.preflight()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(parameter.requires_grad for parameter in fresh._model().parameters())


# --------------------------------------------------------------------- whose weights


class Watched(SelfLikelihood):
    """Keeps the weights that it scored with."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.seen: list[torch.Tensor] = []

    def score(self, trajectories: Any) -> Any:
        self.seen.append(next(p for p in self._model().parameters() if p.ndim > 1).detach().clone())
        return super().score(trajectories)


class Blind(Watched):
    """The dense policy of the tests reads no pictures: the prompt alone is enough to tell whose weights they are."""

    def mean_log_probs(self, prompts: Any, images: Any) -> list[float]:
        return super().mean_log_probs(prompts, None)


@pytest.mark.parametrize("copy", ["frozen", "policy"])
def test_the_copy_stays_and_the_policy_moves(copy: Any) -> None:
    reward = Blind(copy=copy, weight=0.0)
    module = make_module()
    train(module, updates=3, rewards=[reward, RandomReward(seed=1)])
    first, *_, last = reward.seen
    own = next(p for p in module.policy.parameters() if p.ndim > 1).detach()
    assert torch.equal(first, last) == (copy == "frozen")
    assert not torch.equal(own, first)
    assert first.data_ptr() != own.data_ptr()


def test_what_cannot_be_is_refused() -> None:
    for arguments, said in (
        ({"copy": "policy", "policy": EMBEDDED}, "copy=policy is the model that is trained"),
        ({"copy": "other"}, "copy='other' is unknown"),
        ({"baseline": "other"}, "baseline='other' is unknown"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises(ValueError, match=said):
            SelfLikelihood(**arguments)
    with pytest.raises(ValueError, match="has no model to copy: give its policy"):
        SelfLikelihood().preflight()
    with pytest.raises(ValueError, match="judges the model that is trained, and none is"):
        SelfLikelihood(copy="policy").preflight()
    with pytest.raises(ValueError, match=r"rows.jsonl:2: prompt 'a' is empty"):
        SelfLikelihood().check([Prompt(id="a", text=" ", place="rows.jsonl:2")])
    with pytest.raises(ValueError, match=r"set model.init_args.overlap to false, or copy to frozen"):
        train(make_module(overlap=True), rewards=[Blind(copy="policy")])


def test_weights_that_are_shared_out_are_not_read(trajectory: Any) -> None:
    """FSDP2 by a mesh of one process: forwards of a rank's own number would not be in step with the others'."""
    model = NewDenseModel().load()
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        shard(model, init_device_mesh("cpu", (1,)))
        reward = SelfLikelihood(copy="policy")
        reward.setup(None, SimpleNamespace(model=model, overlap=False), "fit")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="fsdp2 shares them out over the ranks: set copy to frozen"):
            reward.preflight()
    finally:
        distributed.destroy_process_group()
