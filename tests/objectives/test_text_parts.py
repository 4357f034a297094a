"""GSPO, Dr.GRPO and truncated weights of texts, against loops."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from project.objectives.base import Counts
from project.objectives.dr_grpo_text import DrGRPOText
from project.objectives.grpo_text import GRPOText
from project.objectives.gspo_text import GSPOText
from project.objectives.truncated_text import TruncatedText
from tests.helpers import replays


def rows(made):
    """(advantage, differences of the tokens) of each text."""
    for r in range(replays.B):
        length = int(made.token_mask_RT[r].sum())
        yield -replays.ADVANTAGE[r].item(), (made.text_log_prob_RT - made.old_text_log_prob_RT)[r, :length].tolist()


def clipped(a, ratio, low, high):
    return max(-a * ratio, -a * min(max(ratio, 1 - low), 1 + high))


def test_gspo_by_loops():
    made = replays.replay(spread=0.1)
    terms = [clipped(a, math.exp(sum(ds) / len(ds)), 0.02, 0.03) for a, ds in rows(made)]
    outputs = GSPOText((0.02, 0.03))(replays.inputs(made))
    assert outputs.loss.item() == pytest.approx(sum(terms) / len(terms))
    assert 0 < outputs.metrics["clip_fraction/text"].value < 1


def test_of_one_token_gspo_is_token_grpo():
    made = replays.replay()
    one = torch.zeros_like(made.token_mask_RT)
    one[:, 0] = True
    counts = Counts(samples=replays.B, steps=1, tokens=replays.B, sequences=replays.B)
    given = replays.inputs(dataclasses.replace(made, token_mask_RT=one), counts=counts)
    clip = (0.1, 0.2)
    torch.testing.assert_close(GSPOText(clip)(given).loss, GRPOText(clip, "token")(given).loss)
    longer = replays.inputs(made)
    assert not torch.allclose(GSPOText(clip)(longer).loss, GRPOText(clip, "token")(longer).loss)


def test_dr_grpo_by_loops():
    made = replays.replay()
    total = sum(clipped(a, math.exp(d), 0.2, 0.28) for a, ds in rows(made) for d in ds)
    assert DrGRPOText(16)(replays.inputs(made)).loss.item() == pytest.approx(total / (replays.B * 16))


def test_dr_grpo_pushes_each_token_equally_however_long_its_text_is():
    made = replays.on_policy(replays.replay())
    log_prob = made.text_log_prob_RT.requires_grad_()
    DrGRPOText(16)(replays.inputs(made)).loss.backward()
    expected = replays.ADVANTAGE[:, None] * made.token_mask_RT / (replays.B * 16)
    torch.testing.assert_close(log_prob.grad, expected)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_truncated_weights_by_loops(level):
    made = replays.replay(spread=0.5)
    log_prob = made.text_log_prob_RT.requires_grad_()
    outputs = TruncatedText(1.2, level)(replays.inputs(made))
    outputs.loss.backward()
    total, gradient = 0.0, torch.zeros_like(log_prob)
    for r, (a, ds) in enumerate(rows(made)):
        same = [sum(ds) / len(ds)] * len(ds) if level == "sequence" else ds
        weights = [min(math.exp(d), 1.2) for d in same]
        total += sum(-a * w for w in weights)
        gradient[r, : len(ds)] = torch.tensor([-a * w for w in weights])  # of a sequence: the mean over equal tokens
    assert outputs.loss.item() == pytest.approx(total / replays.COUNTS.tokens)
    torch.testing.assert_close(log_prob.grad, gradient / replays.COUNTS.tokens)
    assert 0 < outputs.metrics["clip_fraction/text"].value < 1


def test_on_policy_truncation_changes_nothing():
    made = replays.on_policy(replays.replay())
    given = replays.inputs(made)
    assert torch.equal(TruncatedText()(given).loss, GRPOText()(given).loss)
