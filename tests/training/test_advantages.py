from __future__ import annotations

import math

import pytest
import torch

from project.training.advantages import advantages

NAN = math.nan


def zeros(reward):
    return torch.zeros(len(reward))


def scored(values, group_size=2, **settings):
    reward = torch.tensor(values)
    return advantages(reward, zeros(reward), group_size, **settings)


def test_global_std_by_hand():
    # groups (1, 3) and (5, 5): centred -1, 1, 0, 0; mean of all 3.5, population variance (6.25 + .25 + 2.25 * 2) / 4
    result = scored([1.0, 3.0, 5.0, 5.0])
    std = math.sqrt(11 / 4)
    expected = torch.tensor([-1.0, 1.0, 0.0, 0.0]) / (std + 1e-4)
    torch.testing.assert_close(result.image_N, expected)
    torch.testing.assert_close(result.text_N, expected)
    assert result.metrics["reward/mean"] == 3.5
    assert result.metrics["reward/std"] == pytest.approx(std)
    assert result.metrics["reward/zero_std_ratio"] == 0.5
    assert result.valid_N.all()


def test_group_std_and_none_by_hand():
    # group (1, 3): population std 1; group (0, 4): 2
    by_group = scored([1.0, 3.0, 0.0, 4.0], scale="group").image_N
    torch.testing.assert_close(by_group, torch.tensor([-1.0, 1.0, -2.0, 2.0]) / (torch.tensor([1.0, 1, 2, 2]) + 1e-4))
    assert torch.equal(scored([1.0, 3.0, 0.0, 4.0], scale="none").image_N, torch.tensor([-1.0, 1.0, -2.0, 2.0]))


def test_population_std_has_no_degree_of_freedom_taken_off():
    reward = torch.tensor([0.2, 0.9, 0.4, 0.7])
    result = advantages(reward, zeros(reward), 4, eps=0.0)
    torch.testing.assert_close(result.image_N, (reward - reward.mean()) / reward.std(correction=0))


def test_only_the_image_advantage_is_clipped():
    # 40 samples, one of them good: (1 - 1/40) / sqrt(39) * 40 = 6.24
    result = scored([1.0] + [0.0] * 39, group_size=40)
    assert result.image_N.max() == 5.0
    assert result.text_N.max().item() == pytest.approx(39 / math.sqrt(39), rel=1e-3)
    assert scored([1.0] + [0.0] * 39, group_size=40, clip=0.1).image_N.min().item() == pytest.approx(-0.1)


def test_text_advantage_has_its_own_mean_and_std():
    reward, text_reward = torch.tensor([0.0, 1.0]), torch.tensor([3.0, 0.0])
    result = advantages(reward, text_reward, 2, eps=0.0)
    torch.testing.assert_close(result.image_N, torch.tensor([-1.0, 1.0]))
    # r + t = 3, 1: mean 2, std 1
    torch.testing.assert_close(result.text_N, torch.tensor([1.0, -1.0]))


def test_a_failed_sample_leaves_mean_std_and_loss():
    result = scored([1.0, NAN, 3.0, 2.0, 4.0, 6.0], group_size=3)
    alone = torch.tensor([1.0, 3.0, 2.0, 4.0, 6.0])
    std = alone.std(correction=0).item()
    torch.testing.assert_close(result.image_N, torch.tensor([-1.0, 0, 1, -2, 0, 2]) / (std + 1e-4))
    assert result.valid_N.tolist() == [True, False, True, True, True, True]
    assert result.metrics["reward/dropped_samples"] == 1
    assert result.metrics["reward/dropped_groups"] == 0


@pytest.mark.parametrize("scale", ["global", "group", "none"])
def test_a_failed_sample_equals_a_run_without_it(scale):
    values = torch.rand(12).tolist()
    with_failure = scored([*values[:3], NAN, *values[4:8], NAN, *values[9:]], group_size=4, scale=scale)
    survivors = torch.tensor([n not in (3, 8) for n in range(12)])
    # a group of 3, 4 and 3: the same mean and std from the numbers themselves
    kept = torch.tensor(values)[survivors].double()
    for rows in ([0, 1, 2], [4, 5, 6, 7], [9, 10, 11]):
        group = torch.tensor(values)[rows].double()
        divisor = {"global": kept.std(correction=0), "group": group.std(correction=0), "none": torch.tensor(1 - 1e-4)}
        expected = (group - group.mean()) / (divisor[scale] + 1e-4)
        torch.testing.assert_close(with_failure.image_N[rows], expected.float())


def test_a_missing_text_reward_drops_the_sample_too():
    result = advantages(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, NAN, 0.0]), 3)
    assert result.valid_N.tolist() == [True, False, True]
    assert result.image_N[1] == result.text_N[1] == 0


def test_a_group_with_one_survivor_is_dropped_whole():
    result = scored([1.0, NAN, 2.0, 4.0])
    assert result.valid_N.tolist() == [False, False, True, True]
    torch.testing.assert_close(result.image_N, torch.tensor([0.0, 0, -1, 1]) / (1 + 1e-4))
    assert result.metrics["reward/dropped_groups"] == 1
    assert result.metrics["reward/dropped_samples"] == 2
    assert result.metrics["reward/mean"] == 3.0


def test_nothing_survives():
    result = scored([NAN, NAN, NAN, 1.0])
    assert not result.valid_N.any()
    assert result.image_N.eq(0).all()
    assert math.isnan(result.metrics["reward/mean"])


def test_equal_rewards_give_zero():
    result = scored([0.1] * 6, group_size=3)
    assert result.image_N.abs().max() < 1e-9
    assert result.metrics["reward/zero_std_ratio"] == 1.0


@pytest.mark.parametrize(
    ("reward", "size", "message"),
    [
        ([1.0, 2.0], 1, "2 or more"),
        ([1.0, 2.0, 3.0], 2, "whole groups"),
        ([1.0, math.inf], 2, "infinite"),
    ],
)
def test_bad_input_is_refused(reward, size, message):
    with pytest.raises(ValueError, match=message):
        scored(reward, group_size=size)
    with pytest.raises(ValueError, match="choose global, group or none"):
        scored([1.0, 2.0], scale="batch")


def test_badly_formed_text_masks_the_image_advantage_alone():
    rewards, text = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.zeros(4)
    mask = torch.tensor([True, True, False, True])
    plain, masked = advantages(rewards, text, 4), advantages(rewards, text, 4, image_mask_N=mask)
    assert masked.image_N[2] == 0 and torch.equal(masked.image_N[mask], plain.image_N[mask])
    assert torch.equal(masked.text_N, plain.text_N) and torch.equal(masked.valid_N, plain.valid_N)


CONTEXTS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3])
BY_CONTEXT = [1.0, 3.0, 7.0, 7.0, 0.0, 0.0, 6.0, 9.0]


def test_a_picture_is_compared_with_those_of_its_context():
    # contexts of one group: (1, 3), (7, 7), (0, 0, 6), (9) alone; centred -1, 1, 0, 0, -2, -2, 4, 0
    result = scored(BY_CONTEXT, group_size=8, scale="none", image_context_N=CONTEXTS)
    assert result.image_N.tolist() == [-1, 1, 0, 0, -2, -2, 4, 0]
    assert torch.equal(result.text_N, scored(BY_CONTEXT, group_size=8, scale="none").text_N)


def test_std_within_contexts_is_that_of_samples_in_company():
    # squares 1, 1, 0, 0, 4, 4, 16 over seven samples: the one that is alone says nothing of it
    result = scored(BY_CONTEXT, group_size=8, scale="group", image_context_N=CONTEXTS, eps=0.0)
    expected = torch.tensor([-1.0, 1, 0, 0, -2, -2, 4, 0]) / math.sqrt(26 / 7)
    torch.testing.assert_close(result.image_N, expected)


def test_one_context_is_the_whole_group():
    reward = torch.rand(8)
    one = advantages(reward, zeros(reward), 4, scale="group", image_context_N=torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(one.image_N, advantages(reward, zeros(reward), 4, scale="group").image_N)


def test_a_failed_sample_leaves_its_context():
    values = [1.0, NAN, 3.0, 5.0, 2.0, 4.0, 4.0, 8.0]
    contexts = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3])
    result = scored(values, group_size=4, scale="none", image_context_N=contexts)
    assert result.image_N.tolist() == [-1, 0, 1, 0, -1, 1, -2, 2]
    assert result.valid_N.tolist() == [True, False, True, True, True, True, True, True]


def test_the_context_is_a_baseline_of_less_noise():
    """The gradient of a picture's mean, where texts earn ten times what pictures do: r = 10 text + noise."""
    generator = torch.Generator().manual_seed(0)
    P, G = 2000, 8
    text_PG = torch.randint(2, (P, G), generator=generator)
    noise_PG = torch.randn(P, G, generator=generator)
    reward_N = (10 * text_PG + noise_PG).flatten()
    context_N = (torch.arange(P)[:, None] * 2 + text_PG).flatten()

    def gradient(**settings):
        result = advantages(reward_N, zeros(reward_N), G, scale="none", clip=math.inf, **settings)
        return result.image_N.view(P, G) * noise_PG

    whole, within = gradient(), gradient(image_context_N=context_N)
    # d E[r] / d mean = 1; of n samples a mean takes 1 - 1/n away, so about 7/8 of 8, and (8 - 2)/8 of two contexts.
    assert whole.mean().item() == pytest.approx(7 / 8, abs=0.1)
    assert within.mean().item() == pytest.approx(6 / 8, abs=0.03)
    assert within.mean(1).std() < whole.mean(1).std() / 3
