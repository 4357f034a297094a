from __future__ import annotations

import math

import pytest

from project.objectives.awm_image import AWMImage
from tests.helpers import replays


@pytest.mark.parametrize(("weighting", "power"), [("uniform", 0), ("sigma", 1), ("sigma_squared", 2)])
def test_the_loss_by_loops(weighting, power):
    made, clip = replays.replay(), 0.03
    sigma, noise = replays.states(lo=0.2, hi=0.9)
    total = 0.0
    for r in range(replays.B):
        for k, s in enumerate(sigma):
            clean = made.clean_RLD[r]
            x, target = (1 - s) * clean + s * noise[r, k], noise[r, k] - clean
            new, old = (((slope * x + s - target) ** 2).mean().item() for slope in (0.4, 0.3))
            ratio, a = math.exp(s**power * (old - new)), replays.ADVANTAGE[r].item()
            total += max(-a * ratio, -a * min(max(ratio, 1 - clip), 1 + clip)) / replays.STATES
    outputs = AWMImage(clip, weighting, replays.STATES, (0.2, 0.9))(replays.inputs(made))
    assert outputs.loss.item() == pytest.approx(total / replays.B, rel=1e-5)
    assert 0 < outputs.metrics["clip_fraction/image"].value < 1


def test_at_the_first_step_every_ratio_is_one_and_the_gradient_is_that_of_weighted_matching():
    made = replays.on_policy(replays.replay())
    slope = made.velocity.slope.requires_grad_()
    outputs = AWMImage(states=replays.STATES)(replays.inputs(made, first=True))
    outputs.loss.backward()
    assert outputs.maxima["ratio_error/image"] == 0
    sigma, noise = replays.states()
    expected = 0.0
    for k, s in enumerate(sigma):
        x = (1 - s) * made.clean_RLD + s * noise[:, k]
        error = 0.4 * x + s - (noise[:, k] - made.clean_RLD)
        expected += (replays.ADVANTAGE * (2 * error * x).mean((-2, -1))).sum().item()  # of A l
    assert slope.grad.item() == pytest.approx(expected / replays.STATES / replays.B, rel=1e-5)
