from __future__ import annotations

import math

import pytest
import torch

from project.objectives.base import ClipWidths, Mean, Objective, entropy_threshold, with_entropy_threshold
from project.trajectory import Advantages, Group, ImageSegment, Prompt, SampleKey, TextSegment, Trajectory


class Nothing(Objective):
    clip_widths = ClipWidths()

    def __call__(self, inputs):
        raise NotImplementedError


def text(*entropy):
    values = torch.tensor(entropy)
    return TextSegment(
        ids_T=torch.ones(len(entropy)).long(), log_prob_T=-values, entropy_T=values, finished=True, text=""
    )


def image(steps):
    return ImageSegment(
        latents_KLD=torch.zeros(steps, 1, 1),
        next_KLD=torch.zeros(steps, 1, 1),
        step_K=torch.arange(steps),
        log_prob_K=torch.zeros(steps),
        final_LD=torch.zeros(1, 1),
        pixels_HWC=torch.zeros(1, 1, 3, dtype=torch.uint8),
    )


def group(*samples, valid=None):
    key = SampleKey(seed=0, update=0, prompt="p")
    valid_N = torch.tensor(valid or [True] * len(samples))
    zeros = torch.zeros(len(samples))
    return Group(
        trajectories=tuple(Trajectory(prompt=Prompt(id="p", text=""), key=key, segments=s) for s in samples),
        size=len(samples),
        advantages=Advantages(image_N=zeros, text_N=zeros, valid_N=valid_N),
    )


SAMPLES = [
    (text(1.0, 2.0), image(3)),
    (text(0.5), image(3), text(3.0, 4.0, 0.1), image(0)),
    (text(), image(3)),
    (text(9.0), image(3)),
]


def test_counts_are_of_the_survivors():
    counts = Nothing().count([group(*SAMPLES, valid=[True, True, True, False])])
    assert (counts.samples, counts.steps, counts.tokens, counts.sequences) == (3, 9, 6, 3)
    assert counts.world_size == 1 and counts.entropy_threshold == -math.inf


def test_counts_add_up_over_ranks():
    other = torch.tensor([2.0, 6.0, 5.0, 2.0])
    counts = Nothing().count([group(*SAMPLES)], world_size=2, reduce=lambda local: local + other)
    assert (counts.samples, counts.steps, counts.tokens, counts.sequences) == (6, 18, 12, 6)
    assert counts.world_size == 2


def test_counting_needs_advantages():
    with pytest.raises(ValueError, match="call `advantages`"):
        Nothing().count([Group(trajectories=(), size=2)])


def test_means_add_up():
    first = Mean.of(torch.tensor([1.0, 2.0, math.nan]), torch.tensor([1.0, 1.0, 0.0]))
    second = Mean.of(torch.tensor([6.0]), torch.tensor([True]))
    assert (first + second).value == 3.0
    assert Mean.of(torch.zeros(0), torch.zeros(0)).value.isnan()


def test_entropy_threshold_by_hand():
    entropy = torch.tensor([0.25, 4.0, 1.0, 2.0, 3.0])
    # 40% of 5 are the 2 highest; 41% need 3
    assert entropy_threshold(entropy, 0.4) == 3.0
    assert entropy_threshold(entropy, 0.41) == 2.0
    assert entropy_threshold(entropy, 1.0) == 0.25


def test_entropy_threshold_keeps_the_asked_share_within_its_resolution():
    entropy = torch.rand(5000) * 11
    kept = (entropy >= entropy_threshold(entropy, 0.2)).sum().item()
    assert 1000 <= kept <= 1010


def test_zero_entropy_is_kept_when_all_must_be():
    assert entropy_threshold(torch.tensor([-1e-9, 0.0, 5.0]), 1.0) == -math.inf
    assert entropy_threshold(torch.zeros(0), 0.5) == -math.inf


def test_entropy_threshold_of_two_ranks_equals_one():
    entropy = torch.rand(300) * 5
    histograms = []

    def record(local):
        histograms.append(local)
        return local

    for part in (entropy[:100], entropy[100:]):
        entropy_threshold(part, 0.3, record)
    assert entropy_threshold(entropy[:100], 0.3, lambda _: sum(histograms)) == entropy_threshold(entropy, 0.3)


def test_threshold_is_of_the_survivors_tokens():
    samples = group(*SAMPLES, valid=[True, True, True, False])
    counts = with_entropy_threshold(Nothing().count([samples]), [samples], 2 / 6)
    # entropies 1, 2, .5, 3, 4, .1: the two highest start at 3
    assert counts.entropy_threshold == 3.0
