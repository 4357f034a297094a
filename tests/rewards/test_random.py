from __future__ import annotations

import dataclasses

import torch

from project.rewards.random import RandomReward
from project.trajectory import Prompt, SampleKey, Trajectory

SAMPLES = [
    Trajectory(prompt=Prompt(id="p", text=""), key=SampleKey(seed=0, update=u, prompt="p", sample=s), segments=())
    for u in range(50)
    for s in range(8)
]


def test_uniform_and_keyed_by_the_sample():
    reward = RandomReward().score(SAMPLES).reward_N
    assert reward.min() >= 0 and reward.max() < 1
    assert abs(reward.mean().item() - 0.5) < 0.06
    assert len(reward.unique()) == 400
    assert torch.equal(RandomReward().score(SAMPLES[::-1]).reward_N, reward.flip(0))


def test_seeds_differ():
    reward = RandomReward(seed=0).score(SAMPLES).reward_N
    assert not torch.equal(RandomReward(seed=1).score(SAMPLES).reward_N, reward)
    other_run = [dataclasses.replace(s, key=dataclasses.replace(s.key, seed=1)) for s in SAMPLES]
    assert not torch.equal(RandomReward(seed=0).score(other_run).reward_N, reward)


def test_what_was_drawn_teaches_nothing():
    """The reward knows only the key: other segments, the same number."""
    other = [dataclasses.replace(s, prompt=dataclasses.replace(s.prompt, text="another")) for s in SAMPLES]
    assert torch.equal(RandomReward().score(other).reward_N, RandomReward().score(SAMPLES).reward_N)


def test_every_round_has_a_reward_of_its_own():
    first = RandomReward().score(SAMPLES).reward_N
    rounds = [[dataclasses.replace(s, round=r) for s in SAMPLES] for r in (1, 2)]
    one, two = (RandomReward().score(samples).reward_N for samples in rounds)
    assert abs(torch.corrcoef(torch.stack([first, one, two])) - torch.eye(3)).max() < 0.15
