from __future__ import annotations

import dataclasses

import pytest
import torch

from project.objectives.nft_image import NFTImage
from tests.helpers import replays


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_the_loss_by_loops(strength):
    made, a, b = replays.replay(), 2.0, strength
    sigma, noise = replays.states()
    total = 0.0
    for r in range(replays.B):
        good = min(max(replays.ADVANTAGE[r].item(), -a), a) / (2 * a) + 0.5
        for k, s in enumerate(sigma):
            clean = made.clean_RLD[r]
            x = (1 - s) * clean + s * noise[r, k]
            v, old = 0.4 * x + s, 0.3 * x + s
            terms = []
            for velocity in (b * v + (1 - b) * old, (1 + b) * old - b * v):
                error = x - s * velocity - clean
                terms.append((error**2).mean().item() / max(error.abs().mean().item(), 1e-5))
            total += (good * terms[0] + (1 - good) * terms[1]) / b / replays.STATES
    loss = NFTImage(strength, a, replays.STATES)(replays.inputs(made)).loss
    assert loss.item() == pytest.approx(total / replays.B, rel=1e-5)


def gradient(advantage, first=True, **settings):
    made = replays.on_policy(replays.replay()) if first else replays.replay()
    slope = made.velocity.slope.requires_grad_()
    given = replays.inputs(made, first=first, image_advantage_B=advantage)
    NFTImage(states=replays.STATES, **settings)(given).loss.backward()
    return slope.grad.item()


def test_on_policy_an_advantage_of_zero_gives_no_gradient_and_signs_are_opposite():
    zero = torch.zeros(replays.B, dtype=torch.float64)
    assert gradient(zero) == pytest.approx(0.0, abs=1e-8)
    up, down = gradient(zero + 2.0), gradient(zero - 2.0)
    assert abs(up) > 1e-3 and up == pytest.approx(-down, rel=1e-5)


def test_on_policy_the_gradient_does_not_depend_on_the_strength_and_saturates():
    zero = torch.zeros(replays.B, dtype=torch.float64)
    assert gradient(zero + 1.0, strength=0.2) == pytest.approx(gradient(zero + 1.0, strength=1.0), rel=1e-4)
    assert gradient(zero + 9.0) == pytest.approx(gradient(zero + 5.0))


def test_at_later_steps_an_advantage_of_zero_pulls_back_to_the_rollouts_velocity():
    zero = torch.zeros(replays.B, dtype=torch.float64)
    assert gradient(zero, first=False) > 1e-4, "the slope is above the rollout's, so descent lowers it"


def test_a_good_sample_moves_the_velocity_towards_its_picture():
    """One step of descent brings x0(v) nearer to the clean latents of a good sample, and away from a bad one's."""
    for sign in (1.0, -1.0):
        made = replays.on_policy(replays.replay())
        sigma, noise = replays.states()
        slope = made.velocity.slope.requires_grad_()
        given = replays.inputs(made, first=True, image_advantage_B=torch.full((replays.B,), sign).double())
        NFTImage(states=replays.STATES)(given).loss.backward()

        def distance(at, made=made, noise=noise, sigma=sigma):
            far = 0.0
            for k, s in enumerate(sigma):
                x = (1 - s) * made.clean_RLD + s * noise[:, k]
                error = x - s * (at * x + s) - made.clean_RLD
                far += error.square().mean((-2, -1)).div(error.abs().mean((-2, -1))).sum().item()
            return far

        with torch.no_grad():
            after = distance(slope.item() - 1e-3 * slope.grad.item())
        assert (after < distance(slope.item())) == (sign > 0)


def test_guidance_is_that_of_the_task_unless_told_otherwise():
    for guided in (True, False):
        made = replays.replay()
        NFTImage(guided=guided)(replays.inputs(made))
        assert set(made.velocity.guided) == set(made.old_velocity.guided) == {guided}


def test_noise_belongs_to_the_sample_and_the_round():
    made = replays.replay()
    given = replays.inputs(made)
    loss = NFTImage()(given).loss
    assert torch.equal(NFTImage()(given).loss, loss), "drawn by keys, not by a generator that moves on"
    assert not torch.equal(NFTImage()(dataclasses.replace(given, round=1)).loss, loss)
