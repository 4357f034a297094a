from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from project.advantages import advantages
from project.judges.base import Judge
from project.rewards.dvreward import DVReward, average, geometric, group_rewards, of_all
from project.trajectory import ImageSegment, Prompt, Question, SampleKey, Trajectory

S, Q = Question(text="s?", tag="Count"), Question(text="q?", kind="quality", tag="Texture")


class Scripted(Judge):
    """Answers what it was told to, sample by sample."""

    def __init__(self, *answers):
        self.answers = [list(row) for row in answers]
        self.ready = False

    @property
    def name(self):
        return "scripted"

    def answer(self, images, questions, prompts):
        assert all(isinstance(image, np.ndarray) and image.dtype == np.uint8 for image in images)
        assert len(images) == len(questions) == len(prompts)
        return self.answers

    def preflight(self):
        self.ready = True


def sample(questions, place=0):
    image = ImageSegment(
        latents_KLD=torch.zeros(0, 1, 1),
        next_KLD=torch.zeros(0, 1, 1),
        step_K=torch.zeros(0).long(),
        log_prob_K=torch.zeros(0),
        final_LD=torch.zeros(1, 1),
        pixels_HWC=torch.zeros(2, 2, 3, dtype=torch.uint8),
    )
    prompt = Prompt(id="p", text="two cats", questions=tuple(questions))
    return Trajectory(prompt=prompt, key=SampleKey(seed=0, update=0, prompt="p", sample=place), segments=(image,))


def score(questions, *answers, group_size=None, **settings):
    reward = DVReward(Scripted(*answers), **settings)
    return reward.score([sample(questions, n) for n in range(len(answers))], group_size or len(answers))


def rewards(questions, *answers, **settings):
    return score(questions, *answers, **settings).reward_N.tolist()


def test_aggregations_by_hand():
    # semantic (.9 + .5) / 2 = .7, quality .4; the second sample is perfect
    table = ([0.9, 0.5, 0.4], [1.0, 1.0, 1.0])
    assert rewards([S, S, Q], *table) == pytest.approx([math.sqrt(0.28), 1.0])
    assert rewards([S, S, Q], *table, aggregation="mean") == pytest.approx([0.55, 1.0])
    assert rewards([S, S, Q], *table, aggregation="all") == pytest.approx([0.6, 1.0])


def test_without_quality_questions_by_design_the_reward_is_semantic():
    assert rewards([S, S], [0.9, 0.5], [0.2, 0.2]) == pytest.approx([0.7, 0.2])
    assert rewards([S, S], [0.9, 0.5], [0.2, 0.2], aggregation="mean") == pytest.approx([0.7, 0.2])


def test_binary_answers():
    # a tie is no yes
    assert rewards([S, S, Q], [0.51, 0.5, 0.9], [0.9, 0.9, 0.9], binary=True) == pytest.approx([math.sqrt(0.5), 1.0])


def test_dependencies_deny_through_a_chain_and_only_when_asked_for():
    chain = [S, Question(text="b?", depends_on=(0,)), Question(text="c?", depends_on=(1,))]
    table = ([0.2, 0.8, 0.9], [0.8, 0.8, 0.9])
    assert rewards(chain, *table, use_dependencies=True) == pytest.approx([0.2 / 3, 2.5 / 3])
    assert rewards(chain, *table) == pytest.approx([1.9 / 3, 2.5 / 3])
    # also if the later question stands first
    swapped = [Question(text="c?", depends_on=(1,)), Question(text="b?", depends_on=(2,)), S]
    assert rewards(swapped, [0.9, 0.8, 0.2], [0.9, 0.8, 0.8], use_dependencies=True) == pytest.approx(
        [0.2 / 3, 2.5 / 3]
    )


def test_an_unanswered_question_does_not_move_a_sample_against_its_group():
    """facts: the plain mean of what was answered would lift this sample from 0.775 to 0.857."""
    hard = [0.95] * 6 + [0.3, 0.2]
    full = rewards([S] * 8, hard, hard, hard)
    masked = rewards([S] * 8, [*hard[:7], None], hard, hard)
    assert full == pytest.approx([0.775] * 3)
    assert masked == pytest.approx(full)
    assert sum(hard[:7]) / 7 == pytest.approx(0.857, abs=5e-4)


def test_imputation_takes_the_mean_of_those_who_answered():
    # second question: (.2 + .6) / 2 = .4 for the first sample
    assert rewards([S, S], [0.8, None], [0.5, 0.2], [0.5, 0.6]) == pytest.approx([0.6, 0.35, 0.55])


def test_a_question_that_nobody_answered_is_left_out_for_all():
    assert rewards([S, S, Q], [0.8, None, 0.5], [0.4, None, 0.5]) == pytest.approx([math.sqrt(0.4), math.sqrt(0.2)])


def test_a_sample_with_too_few_answers_is_not_scored_and_leaves_no_trace():
    answers = ([None, None, 0.9], [0.6, 0.4, None], [0.2, 0.4, 0.3])
    with_failure = rewards([S, S, Q], *answers)
    assert math.isnan(with_failure[0])
    assert with_failure[1:] == pytest.approx(rewards([S, S, Q], *answers[1:]))
    # half is enough, and the threshold is an argument
    assert not math.isnan(rewards([S, Q], [0.5, None], [0.5, 0.5])[0])
    assert math.isnan(rewards([S, Q], [0.5, None], [0.5, 0.5], minimum_answered=0.75)[0])


def test_a_judge_that_is_away_scores_nobody():
    output = score([S, Q], [None, None], [None, None], minimum_answered=0.0)
    assert output.reward_N.isnan().all()
    assert output.metrics["judge/unanswered"] == 1.0


def test_quality_alone_is_no_reward():
    assert all(map(math.isnan, rewards([S, Q, Q], [None, 0.9, 0.9], [None, 0.2, 0.2])))


def test_a_failed_sample_leaves_the_advantages_of_the_others_alone():
    rows = ([0.9, 0.7], [None, None], [0.3, None], [0.5, 0.2])
    failed = torch.tensor(rewards([S, Q], *rows))
    without = torch.tensor(rewards([S, Q], rows[0], *rows[2:]))
    kept = [0, 2, 3]
    torch.testing.assert_close(
        advantages(failed, torch.zeros(4), 4).image_N[kept], advantages(without, torch.zeros(3), 3).image_N
    )


def test_groups_do_not_mix():
    table = ([0.8, None], [0.5, 0.2], [0.1, 0.9], [0.1, None])
    both = rewards([S, S], *table, group_size=2)
    assert both == pytest.approx(rewards([S, S], *table[:2]) + rewards([S, S], *table[2:]))
    assert both == pytest.approx([0.5, 0.35, 0.5, 0.5])


def test_metrics_are_of_what_was_answered():
    output = score([S, S, Q], [0.9, None, 0.4], [0.6, 0.3, None])
    assert output.metrics == pytest.approx(
        {"reward/tag/Count": 0.6, "reward/tag/Texture": 0.4, "judge/unanswered": 2 / 6}
    )
    assert output.confidence_NQ == ((0.9, None, 0.4), (0.6, 0.3, None))


@pytest.mark.parametrize("aggregate", [geometric, average, of_all])
def test_aggregation_is_monotonic(aggregate):
    better = group_rewards([[0.5, 0.5, 0.5], [0.6, 0.5, 0.5], [0.6, 0.5, 0.6]], [S, S, Q], aggregate=aggregate)
    assert better[0] < better[1] < better[2]


@pytest.mark.parametrize(
    ("answers", "message"), [([[0.5]], "every question"), ([[0.5, 1.2]], "outside"), ([[0.5, math.nan]], "outside")]
)
def test_a_judge_out_of_line_is_refused(answers, message):
    with pytest.raises(ValueError, match=message):
        score([S, Q], *answers)


def test_prompts_without_what_is_needed_are_refused():
    reward = DVReward(Scripted())
    with pytest.raises(ValueError, match=r"'p' has no semantic question.*decompose"):
        reward.check([sample([S]).prompt, sample([Q]).prompt])
    for place in (0, 2, -1):
        with pytest.raises(ValueError, match="numbered 0 to 1"):
            reward.check([sample([Question(text="a?", depends_on=(place,)), S]).prompt])
    reward.check([sample([S, Question(text="b?", depends_on=(0,))]).prompt])


def test_preflight_reaches_the_judge():
    judge = Scripted()
    DVReward(judge).preflight()
    assert judge.ready


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="choose one of geometric, mean, all"):
        DVReward(Scripted(), aggregation="median")
    with pytest.raises(ValueError, match="from 0 to 1"):
        DVReward(Scripted(), minimum_answered=50)
