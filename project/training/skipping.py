"""Why an update is skipped, in words, and how often that is borne."""

NO_REWARDS = (
    "no prompt has two samples with a reward: the rewards gave NaN, the judge did not answer, or no round improved "
    "a picture; look at reward/dropped_samples, judge/unanswered and srr/1/skipped "
    "(model.init_args.update.max_skipped sets how many such updates in a row are borne)"
)
ALL_EQUAL = "every advantage is zero: the samples of each prompt have equal rewards, look at reward/zero_std_ratio"
NOT_FINITE = "its gradient is not finite, look at the rewards, the learning rate and the precision"

MOST_NOT_FINITE = 3
"""The run stops after this many updates in a row without a finite gradient."""
