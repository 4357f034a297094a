"""The greedy baseline: what is drawn, what it is compared with, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from lightning import Callback

from project.samplers.guidance import Guidance
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.self_reflection import SelfReflection
from project.training.advantages import advantages
from project.training.settings import AdvantageSettings
from tests.helpers.tiny_module import make_module, train

REWARD = torch.tensor([0.5, 0.9, 0.1, 0.2, 0.2, 0.8])
NO_TEXT = torch.zeros(6)


def better(baseline, text_baseline=(0.0, 0.0), **settings):
    given = dict(baseline_P=torch.tensor(baseline), text_baseline_P=torch.tensor(text_baseline))
    return advantages(REWARD, settings.pop("text", NO_TEXT), 3, eps=0.0, **settings, **given)


def test_a_reward_is_compared_with_that_of_the_greedy_sample():
    found = better([0.4, 0.2], scale="none")
    torch.testing.assert_close(found.image_N, torch.tensor([0.1, 0.5, -0.3, 0.0, 0.0, 0.6]))
    assert torch.equal(found.text_N, found.image_N) and found.metrics["reward/greedy"] == pytest.approx(0.3)


def test_the_std_is_that_around_the_mean():
    std = REWARD[:3].double().std(correction=0)
    found = better([0.4, 0.2], scale="group")
    torch.testing.assert_close(
        found.image_N[:3].double(), torch.tensor([0.1, 0.5, -0.3]).double() / std, rtol=1e-5, atol=1e-6
    )
    whole = better([0.4, 0.2], scale="global")
    assert whole.image_N[1].item() == pytest.approx(0.5 / REWARD.double().std(correction=0).item())


def test_text_rewards_are_compared_with_those_of_the_greedy_text():
    found = better([0.4, 0.2], (0.5, 0.0), scale="none", text=NO_TEXT + 0.25)
    torch.testing.assert_close(found.text_N, found.image_N + torch.tensor([-0.25] * 3 + [0.25] * 3))


def test_the_mean_of_the_group_as_baseline_is_the_usual_advantage():
    usual = advantages(REWARD, NO_TEXT, 3, scale="group")
    means = REWARD.view(2, 3).double().mean(1)
    same = advantages(REWARD, NO_TEXT, 3, scale="group", baseline_P=means, text_baseline_P=torch.zeros(2))
    torch.testing.assert_close(same.image_N, usual.image_N)


def test_a_group_whose_greedy_sample_has_no_reward_is_dropped():
    found = better([math.nan, 0.2], scale="none")
    assert found.valid_N.tolist() == [False] * 3 + [True] * 3
    assert found.image_N[:3].eq(0).all() and found.metrics["reward/dropped_groups"] == 1


class Keep(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, *args):
        self.group = outputs["group"]


def test_the_greedy_sample_follows_the_ode_and_depends_on_no_draw_of_the_text():
    texts = []
    for seed in (1, 2):
        keep = Keep()
        trainer = train(make_module(baseline="greedy", seed=seed), updates=1, callbacks=[keep])
        greedy = keep.group.greedy
        assert greedy.size == 1 and [t.prompt.id for t in greedy.trajectories] == ["0", "1", "2"]
        assert all(len(t.image.step_K) == 0 for t in greedy.trajectories)
        texts.append([t.texts[0].ids_T.tolist() for t in greedy.trajectories])
    assert texts[0] == texts[1], "another seed, the same most probable tokens"
    reward_NG = keep.group.scores.reward_N.view(3, 4) - greedy.scores.reward_N[:, None]
    advantage_NG = keep.group.advantages.image_N.view(3, 4)
    assert torch.equal(reward_NG.sign().float(), advantage_NG.sign()), "better than the greedy sample = pushed up"
    assert trainer.callback_metrics["reward/greedy"] == pytest.approx(greedy.scores.reward_N.mean().item())


def test_a_task_of_several_pictures_a_sample_is_refused():
    guidance = Guidance(text=2.0, interval=(0.0, 1.0))
    task = SelfReflection(ReasoningT2I(height=8, width=8, guidance=guidance), guidance=guidance, candidates=4)
    with pytest.raises(ValueError, match="SelfReflection has no greedy sample to compare with"):
        make_module(task=task, baseline="greedy")


def test_a_greedy_sample_is_no_baseline_of_what_is_normalised_within_groups():
    with pytest.raises(ValueError, match="the greedy sample is in none"):
        AdvantageSettings(baseline="greedy", combine="normalised")
