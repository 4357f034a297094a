"""The paired bootstrap: exact on degenerate data, right on average on synthetic data, strata evenly weighed."""

from __future__ import annotations

import numpy as np
import pytest

from project.core.statistics import Share, bootstrap, bootstrap_shares, paired_bootstrap, resampled_counts

KINDS = ["count", "count", "single", "single"]


def test_counts_for_figures_that_are_no_means():
    values = np.random.default_rng(3).uniform(size=4)
    kinds = ["a", "b", "b", "b"]
    counts = np.concatenate(list(resampled_counts(kinds, resamples=2500, seed=7)))
    assert counts.shape == (2500, 4)
    assert (counts[:, 0] == 1).all() and (counts[:, 1:].sum(axis=1) == 3).all()
    assert len(np.unique(counts, axis=0)) == 10, "three draws of three prompts"
    wanted = bootstrap(values[None], kinds, resamples=2500, seed=7)
    means = 100 * (values[0] + counts[:, 1:] @ values[1:] / 3) / 2
    assert np.quantile(means, [0.025, 0.975]) == pytest.approx([wanted.low, wanted.high])
    for kinds, resamples in ((["a"], 0), ([], 5)):
        with pytest.raises(ValueError, match="give at least one of each"):
            next(resampled_counts(kinds, resamples))


def test_a_constant_gain_has_no_width():
    before = np.array([[0.0, 0.25, 0.5, 0.0], [0.25, 0.0, 0.0, 0.5]])
    gain = paired_bootstrap(before, before + 0.25, KINDS)
    assert (gain.mean, gain.low, gain.high) == (25.0, 25.0, 25.0)


def test_two_seeds_and_constant_prompts_by_hand():
    # Gains 0 and 0.4: the mean of two drawn seeds is 0, 20 or 40 with probability 1/4, 1/2, 1/4.
    gain = paired_bootstrap(np.zeros((2, 4)), [[0.0] * 4, [0.4] * 4], KINDS)
    assert gain.mean == pytest.approx(20.0)
    assert (gain.low, gain.high) == (0.0, pytest.approx(40.0))


def test_one_seed_and_two_prompts_by_hand():
    # Two draws of {0, 1}: 0, 50 or 100 with probability 1/4, 1/2, 1/4.
    level = bootstrap([[0.0, 1.0]], ["single", "single"])
    assert (level.mean, level.low, level.high) == (50.0, 0.0, 100.0)


def test_strata_weigh_the_same_whatever_their_size():
    # One prompt of a kind that succeeds, nine of a kind that fails: 50, not 10.
    level = bootstrap([[1.0] + [0.0] * 9], ["single"] + ["count"] * 9)
    assert (level.mean, level.low, level.high) == (50.0, 50.0, 50.0)


def test_prompts_are_drawn_within_their_stratum():
    # Each kind is constant: without strata the number of successes drawn would vary, and so would the mean.
    level = bootstrap([[1.0, 1.0, 0.0, 0.0]], KINDS)
    assert level.low == level.high == 50.0


def test_pairing_removes_what_prompts_have_in_common():
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0, 0.5, size=(1, 400))
    noise = rng.normal(0, 0.01, size=(1, 400))
    paired = paired_bootstrap(difficulty, difficulty + 0.1 + noise, ["single"] * 400)
    # Standard error 0.01 / sqrt(400) = 0.05 points: a 95% interval 0.2 wide, where unpaired levels give 2.8.
    assert paired.high - paired.low == pytest.approx(0.196, rel=0.15)
    assert bootstrap(difficulty, ["single"] * 400).high - bootstrap(difficulty, ["single"] * 400).low > 2


def test_the_interval_width_of_a_normal_mean():
    # 1.96 standard errors to each side: 100 * 2 * 1.96 * sd / sqrt(n).
    values = np.random.default_rng(1).normal(size=(1, 900))
    level = bootstrap(values, ["single"] * 900)
    assert level.high - level.low == pytest.approx(100 * 2 * 1.96 * values.std() / 30, rel=0.03)


def test_coverage_of_the_true_gain():
    # Prompts and seeds both vary; with 8 seeds the interval should hold the truth in about 90-97% of studies.
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        seed_effect = rng.normal(0, 0.05, size=(8, 1))
        prompt_effect = rng.normal(0, 0.5, size=(1, 100))
        gain = 0.2 + seed_effect + prompt_effect + rng.normal(0, 0.3, size=(8, 100))
        interval = paired_bootstrap(np.zeros((8, 100)), gain, KINDS * 25, resamples=400)
        covered += interval.low <= 20.0 <= interval.high
    assert 176 <= covered <= 198


def test_shares_of_everything_are_means():
    rng = np.random.default_rng(3)
    before, after = (Share(value_SP=rng.uniform(size=(3, 8)), given_SP=np.ones((3, 8))) for _ in range(2))
    strata = KINDS * 2
    gain = bootstrap_shares([(1, after), (-1, before)], strata)
    expected = paired_bootstrap(before.value_SP, after.value_SP, strata)
    assert (gain.mean, gain.low, gain.high) == pytest.approx((expected.mean, expected.low, expected.high), abs=1e-5)


def test_a_share_is_of_what_is_given_in_each_evaluation():
    given = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    share = Share(value_SP=np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]]), given_SP=given)
    found = bootstrap_shares([(1, share)], ["a"] * 4)
    assert found.mean == pytest.approx(50.0), "2 of the 4 that are given"
    assert found.low < 50 < found.high
    # The width of a ratio of sums: 200 prompts, of which about half are given.
    rng = np.random.default_rng(5)
    value, given = (rng.random((1, 400)) < p for p in (0.3, 0.5))
    ratio = bootstrap_shares([(1, Share(value_SP=value * 1.0, given_SP=given * 1.0))], ["a"] * 400)
    share_of = value[given].mean()
    width = 100 * 2 * 1.96 * np.sqrt(share_of * (1 - share_of) / given.sum())
    assert ratio.mean == pytest.approx(100 * share_of) and ratio.high - ratio.low == pytest.approx(width, rel=0.1)
    with pytest.raises(ValueError, match="a share of nothing"):
        bootstrap_shares([(1, Share(value_SP=value * 1.0, given_SP=given * 0.0))], ["a"] * 400)


def test_more_resamples_than_a_chunk_and_the_same_seed_the_same_numbers():
    values = np.random.default_rng(4).uniform(size=(3, 20))
    one, two = (bootstrap(values, KINDS * 5, resamples=2500, seed=7) for _ in range(2))
    assert one == two
    assert one != bootstrap(values, KINDS * 5, resamples=2500, seed=8)


@pytest.mark.parametrize(
    ("before", "after", "strata", "message"),
    [
        ([[0.0, 1.0]], [[0.0]], ["a", "a"], "same seeds and prompts"),
        ([[0.0, 1.0]], [[0.0, 1.0]], ["a"], "stratum of every prompt"),
        ([[0.0, np.nan]], [[0.0, 1.0]], ["a", "a"], "not finite"),
        ([0.0, 1.0], [0.0, 1.0], ["a", "a"], "seeds, prompts"),
        (np.zeros((0, 2)), np.zeros((0, 2)), ["a", "a"], "at least one"),
    ],
)
def test_what_cannot_be_compared_is_refused(before, after, strata, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(before, after, strata)


def test_no_resamples_are_refused():
    with pytest.raises(ValueError, match="resamples = 0"):
        bootstrap([[0.0]], ["a"], resamples=0)
