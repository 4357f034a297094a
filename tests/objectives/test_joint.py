"""Any loss of the pictures with any loss of the texts: weights, needs, labels, cuts into micro-batches."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from project.objectives.awm_image import AWMImage
from project.objectives.base import ClipWidths, Needs
from project.objectives.dr_grpo_text import DrGRPOText
from project.objectives.grpo import GRPO
from project.objectives.grpo_image import GRPOImage
from project.objectives.grpo_text import GRPOText
from project.objectives.gspo_text import GSPOText
from project.objectives.guard_image import GuardImage
from project.objectives.joint import Joint
from project.objectives.nft_image import NFTImage
from project.objectives.step_kl import StepKL
from project.objectives.token_kl import TokenKL
from project.objectives.truncated_image import TruncatedImage
from project.objectives.truncated_text import TruncatedText
from project.objectives.velocity_kl import VelocityKL
from tests.helpers import replays

IMAGES = [GRPOImage(0.1), GuardImage(0.1), TruncatedImage(0.1), NFTImage(), AWMImage(0.1, "sigma"), None]
TEXTS = [GRPOText(), GSPOText((0.1, 0.2)), DrGRPOText(8), TruncatedText(1.2), None]
PAIRS = [pair for pair in itertools.product(IMAGES, TEXTS) if any(pair)]


def name(part):
    return type(part).__name__


@pytest.mark.parametrize(("image", "text"), PAIRS, ids=name)
def test_any_pair_is_the_sum_of_its_parts_and_the_same_for_any_micro_batches(image, text):
    joint = Joint(image, text, image_weight=0.5, text_weight=2.0)
    made = replays.replay()
    given = replays.inputs(made, text_weight=0.3)
    whole = joint(given)
    alone = [0.5 * image(given).loss] if image else []
    alone += [2.0 * 0.3 * text(given).loss] if text else []
    torch.testing.assert_close(whole.loss, sum(alone))
    parts = [joint(replays.inputs(made, rows, text_weight=0.3)) for rows in ([3, 1], [4, 0, 2])]
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss, rtol=1e-6, atol=1e-7)
    for key, mean in whole.metrics.items():
        both = parts[0].metrics[key] + parts[1].metrics[key]
        assert both.value.item() == pytest.approx(mean.value.item(), rel=1e-5), key
    for key, largest in whole.maxima.items():
        torch.testing.assert_close(max(part.maxima[key] for part in parts), largest)


def test_averaging_over_ranks_gives_the_loss_of_one():
    joint = Joint(NFTImage(), GSPOText(), image_penalty=VelocityKL(0.1, at="noised"), text_penalty=TokenKL(0.2))
    made = replays.replay()
    counts = dataclasses.replace(replays.COUNTS, world_size=2)
    ranks = [joint(replays.inputs(made, rows, counts=counts)).loss for rows in ([0, 1], [2, 3, 4])]
    torch.testing.assert_close(sum(ranks) / 2, joint(replays.inputs(made)).loss)


def test_grpo_is_the_pair_that_the_paper_has_to_the_last_digit():
    made = replays.replay(spread=0.02)
    paper = GRPO(0.01, (0.01, 0.02), kl_image=0.02, kl_text=0.1, text_weight=0.7)
    pair = Joint(GRPOImage(0.01), GRPOText((0.01, 0.02), "sequence"), 1.0, 0.7, StepKL(0.02), TokenKL(0.1))
    assert torch.equal(paper(replays.inputs(made)).loss, pair(replays.inputs(made)).loss)
    assert paper.needs == pair.needs and paper.clip_widths == pair.clip_widths == ClipWidths(image=0.01, text=0.01)


def test_needs_are_those_of_all_parts():
    assert Joint(text=GRPOText()).needs == Needs(transitions=False, whole_samples=False)
    sums = GRPO(kl_image=0.1, kl_text=0.1).needs
    assert sums == Needs(reference=True, whole_samples=False), "a sample may be cut over its steps"
    forward = Joint(NFTImage(states=3), GSPOText(), image_penalty=VelocityKL(1.0, at="noised", states=2)).needs
    assert forward == Needs(reference=True, transitions=False, old_velocity=True, states=5)
    assert Joint(GuardImage(), text_penalty=TokenKL(1.0)).needs == Needs(reference=True, rollout_means=True)
    assert Joint(NFTImage(guided=False), image_penalty=VelocityKL(1.0)).needs.unguided


def test_it_says_what_it_is_made_of_and_which_first_ratio_it_takes():
    assert Joint(NFTImage(), GSPOText()).label == "Joint of NFTImage, GSPOText"
    assert Joint(NFTImage(), GSPOText()).first_step_ratio == "measured"
    assert Joint(NFTImage(), GSPOText(first_step_ratio="one")).first_step_ratio == "one"
    assert Joint(GRPOImage(), GSPOText(first_step_ratio="one")).first_step_ratio == "measured"
    assert Joint(NFTImage()).first_step_ratio is None
    assert GRPO(first_step_ratio="one").first_step_ratio == "one"


def test_the_entropy_quantile_of_the_text_part_is_counted():
    assert Joint(text=GSPOText(top_entropy_quantile=0.2)).text.top_entropy_quantile == 0.2
    with pytest.raises(ValueError, match="keeps all tokens"):
        GSPOText(top_entropy_quantile=0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Joint(), "nothing is trained: name an image part, a text part or both"),
        (lambda: Joint(GRPOImage(), image_weight=-1.0), "none may be negative"),
        (lambda: GRPOImage(0.0), "clip=0.0: it must be positive"),
        (lambda: GRPOText((0.1, 0.0)), "clip, high=0.0: it must be positive"),
        (lambda: StepKL(-1.0), "the weight of a penalty may not be negative"),
        (lambda: TokenKL(-1.0), "the weight of a penalty may not be negative"),
        (lambda: TruncatedText(1.0), "give a cap above 1"),
        (lambda: TruncatedImage(0.0), "excess=0.0: it must be positive"),
        (lambda: DrGRPOText(0), "length=0: give the tokens of the longest text"),
        (lambda: NFTImage(states=0), "needs at least 1 noised state"),
        (lambda: NFTImage(flow_times=(0.5, 0.5)), "give .lo, hi. with 0 <= lo < hi <= 1"),
        (lambda: NFTImage(strength=0.0), "strength=0.0: it must be positive"),
        (lambda: AWMImage(weighting="cubic"), "weighting='cubic' is unknown: choose one of uniform, sigma"),
        (lambda: VelocityKL(1.0, guided=False), "take at=noised"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("part", "missing", "message"),
    [
        (GuardImage(), {"old_mean_RKLD": None}, "GuardImage needs the means of the rollout's steps"),
        (NFTImage(), {"clean_RLD": None}, "needs Replay.clean_RLD and LossInputs.keys"),
        (NFTImage(), {"velocity": None}, "needs Replay.velocity, which the replay lacks"),
        (NFTImage(), {"old_velocity": None}, "needs Replay.old_velocity, which the replay lacks"),
        (VelocityKL(1.0), {"reference": None}, "VelocityKL needs the reference policy's replay"),
        (VelocityKL(1.0), {"velocity_RKLD": None}, "needs Replay.velocity_RKLD of both policies"),
        (StepKL(1.0), {"reference": None}, "StepKL needs the reference policy's replay"),
        (TokenKL(1.0), {"reference": None}, "TokenKL needs the reference policy's replay"),
    ],
)
def test_a_replay_that_lacks_something_is_refused(part, missing, message):
    given = replays.inputs(replays.replay())
    with pytest.raises(ValueError, match=message):
        part(dataclasses.replace(given, replay=dataclasses.replace(given.replay, **missing)))
