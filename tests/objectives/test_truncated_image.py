from __future__ import annotations

import pytest
import torch

from project.objectives.grpo_image import GRPOImage
from project.objectives.truncated_image import TruncatedImage
from tests.helpers import replays


def test_by_hand_and_beyond_the_cap_a_step_keeps_its_gradient():
    made = replays.replay(spread=0.2)
    log_prob = made.image_log_prob_RK.requires_grad_()
    outputs = TruncatedImage(0.05)(replays.inputs(made))
    outputs.loss.backward()
    ratio = (made.image_log_prob_RK - made.old_image_log_prob_RK).exp().detach()
    weight = torch.minimum(ratio, torch.tensor(1.05, dtype=torch.float64))
    expected = -replays.ADVANTAGE[:, None] * weight / replays.COUNTS.steps
    torch.testing.assert_close(log_prob.grad, expected)
    assert outputs.loss.item() == pytest.approx(expected.sum().item())
    beyond = (ratio > 1.05).double().mean().item()
    assert outputs.metrics["clip_fraction/image"].value.item() == pytest.approx(beyond) and 0 < beyond < 1


def test_at_the_first_step_it_is_the_policy_gradient_as_grpo_is():
    made = replays.on_policy(replays.replay())
    given = replays.inputs(made, first=True)
    assert torch.equal(TruncatedImage()(given).loss, GRPOImage()(given).loss)
