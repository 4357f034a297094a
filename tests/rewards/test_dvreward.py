from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np
import pytest
import torch

from project.core.metrics import Sum, values
from project.judges.base import Judge
from project.rewards.dvreward import DVReward, average, circular, geometric, group_rewards, of_all, propagated
from project.rewards.scoring import Scorer
from project.training.advantages import advantages
from project.trajectory import Group, ImageSegment, Prompt, Question, SampleKey, Trajectory

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

    def metrics(self):
        return {"judge/calls": Sum(value=3.0)}


def sample(questions, place=0):
    image = ImageSegment(
        latents_KLD=torch.zeros(0, 1, 1),
        next_KLD=torch.zeros(0, 1, 1),
        step_K=torch.zeros(0).long(),
        log_prob_K=torch.zeros(0),
        final_LD=torch.zeros(1, 1),
        pixels_HWC=torch.full((2, 2, 3), place, dtype=torch.uint8),
    )
    # Questions of one wording are one question, so each gets a wording of its own.
    worded = (dataclasses.replace(question, text=f"{n}: {question.text}") for n, question in enumerate(questions))
    prompt = Prompt(id="p", text="two cats", questions=tuple(worded))
    return Trajectory(prompt=prompt, key=SampleKey(seed=0, update=0, prompt="p", sample=place), segments=(image,))


def score(questions, *answers, group_size=None, **settings):
    """What the reward says within groups; all samples are one group if None."""
    return in_groups(
        DVReward(Scripted(*answers), **settings),
        [sample(questions, n) for n in range(len(answers))],
        group_size or len(answers),
    )


def in_groups(reward, samples, size):
    output = reward.score(samples)
    within = reward.within_groups(output, [sample.prompt for sample in samples], size)
    return dataclasses.replace(output, reward_N=within)


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


def test_an_unanswered_parent_leaves_its_children_unanswered():
    pair = [S, Question(text="child?", depends_on=(0,))]
    table = ([None, 0.9], [0.8, 0.4], [0.6, 0.6])
    # first sample: nothing is known of it, so it is not scored; by itself the child would be an answer
    found = rewards(pair, *table, use_dependencies=True)
    assert math.isnan(found[0]) and found[1:] == pytest.approx([0.6, 0.6])
    assert rewards(pair, *table)[0] == pytest.approx((0.7 + 0.9) / 2)
    # with something known it takes the means of the others, (.8 + .6) / 2 and (.4 + .6) / 2
    other = [*pair, S]
    table = ([None, 0.9, 1.0], [0.8, 0.4, 0.0], [0.6, 0.6, 0.0])
    found = rewards(other, *table, use_dependencies=True, minimum_answered=0.3)
    assert found == pytest.approx([(0.7 + 0.5 + 1.0) / 3, 0.4, 0.4])


def test_a_denial_speaks_for_unanswered_children_too():
    # the child of a denied parent is known to be no, so two of two questions are answered
    pair = [S, Question(text="child?", depends_on=(0,))]
    assert rewards(pair, [0.2, None], [0.8, 0.8], use_dependencies=True, minimum_answered=1.0) == pytest.approx(
        [0.1, 0.8]
    )


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_what_follows_does_not_depend_on_the_order_of_questions(order):
    # a denies b and so c, although c's other parent d is unanswered
    parents, answers = {0: (), 1: (0,), 2: (1, 3), 3: ()}, {0: 0.1, 1: 0.9, 2: 0.9, 3: math.nan}
    place = {name: position for position, name in enumerate(order)}
    questions = [Question(text=str(n), depends_on=tuple(place[p] for p in parents[n])) for n in order]
    found = propagated(torch.tensor([[answers[n] for n in order]]), questions)[0]
    by_name = {name: found[place[name]].item() for name in order}
    assert by_name[0] == pytest.approx(0.1) and by_name[1] == by_name[2] == 0 and math.isnan(by_name[3])


def test_tags_weigh_in_every_mean_by_hand():
    count, colour, quality = S, Question(text="c?", tag="Attribute"), Q
    table = ([0.9, 0.3, 0.4], [0.0, 0.6, 1.0])
    weights = {"Count": 2.0, "Texture": 5.0}
    # semantic (2 * .9 + .3) / 3 = .7 and .2; a single quality question is its own mean
    found = rewards([count, colour, quality], *table, tag_weights=weights)
    assert found == pytest.approx([math.sqrt(0.28), math.sqrt(0.2)])
    found = rewards([count, colour, quality], *table, tag_weights=weights, aggregation="all")
    assert found == pytest.approx([(1.8 + 0.3 + 2.0) / 8, (0.6 + 5.0) / 8])
    # quality (5 * .4 + 1) / 6 = .5, semantic .98
    other = Question(text="g?", kind="quality", tag="Geometry")
    found = rewards([count, quality, other], [0.98, 0.4, 1.0], [0.5, 0.5, 0.5], tag_weights=weights)
    assert found == pytest.approx([0.7, 0.5])
    # weight 0 leaves a tag out, of the share that must be answered too
    found = rewards([count, colour], [None, 0.3], [0.9, 0.6], tag_weights={"Count": 0.0}, minimum_answered=1.0)
    assert found == pytest.approx([0.3, 0.6])


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
    assert values(output.metrics)["judge/unanswered"] == 1.0


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
    assert values(output.metrics) == pytest.approx(
        {"reward/tag/Count": 0.6, "reward/tag/Texture": 0.4, "judge/unanswered": 2 / 6, "judge/calls": 3.0}
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


def test_questions_in_a_circle_are_refused():
    def asked(*parents):
        questions = tuple(Question(text=str(n), tag="Count", depends_on=(p,)) for n, p in enumerate(parents))
        return Prompt(id="p", text="", questions=(*questions, S), place="f.jsonl:7")

    DVReward(Scripted()).check([asked(1, 2)])
    with pytest.raises(
        ValueError, match=r"f\.jsonl:7: prompt 'p': questions \[0, 1\] depend on each other in a circle"
    ):
        DVReward(Scripted()).check([asked(1, 0)])
    assert circular([(), (0,), (0, 1)]) == [] and circular([(2,), (), (0,), (0, 1)]) == [0, 2, 3]


def test_a_tag_that_is_nowhere_and_a_prompt_left_without_questions_are_refused():
    prompts = [sample([S, Q]).prompt]
    with pytest.raises(ValueError, match="no question has the tag 'Cuont': did you mean 'Count'"):
        DVReward(Scripted(), tag_weights={"Cuont": 2.0}).check(prompts)
    with pytest.raises(ValueError, match="tag_weights leaves it no semantic question"):
        DVReward(Scripted(), tag_weights={"Count": 0.0}).check(prompts)
    DVReward(Scripted(), tag_weights={"Texture": 0.0}).check(prompts)


def test_questions_without_a_tag_are_named(caplog):
    prompt = Prompt(id="p", text="", questions=(S, Question(text="is it?")), place="train.jsonl:3")
    with caplog.at_level(logging.WARNING, "project.rewards.dvreward"):
        DVReward(Scripted()).check([sample([S]).prompt])
        assert not caplog.records
        DVReward(Scripted()).check([prompt])
    assert "1 questions have no tag (the first: train.jsonl:3: 'is it?')" in caplog.text


def test_preflight_reaches_the_judge():
    judge = Scripted()
    DVReward(judge).preflight()
    assert judge.ready


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="choose one of geometric, mean, all"):
        DVReward(Scripted(), aggregation="median")
    with pytest.raises(ValueError, match="from 0 to 1"):
        DVReward(Scripted(), minimum_answered=50)
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="0 or more"):
            DVReward(Scripted(), tag_weights={"Count": value})


def test_what_had_stopped_is_not_asked_and_moves_nobody():
    """Contract 4 in later rounds: of four samples two stopped; the others score as if they were alone."""
    questions = [S, Question(text="t?", tag="Color")]
    samples = [sample(questions, n) for n in range(4)]
    stopped = [dataclasses.replace(t, segments=(), source=t.image) if n in (0, 2) else t for n, t in enumerate(samples)]
    reward = DVReward(Scripted((0.5, 0.2), (0.5, None)))
    group = Group(trajectories=tuple(stopped), size=4)
    scorer = Scorer([reward], skip_stopped=True)
    scores = scorer.collect(dataclasses.replace(group, pending=(scorer(stopped),)))
    alone = in_groups(DVReward(Scripted((0.5, 0.2), (0.5, None))), samples[:2], 2)
    assert scores.reward_N.isnan().tolist() == [True, False, True, False]
    torch.testing.assert_close(scores.reward_N[1::2], alone.reward_N)
    assert scores.confidence_NQ == ((None, None), (0.5, 0.2), (None, None), (0.5, None))
    assert values(scores.metrics)["judge/unanswered"] == 0.25, "what is not asked is not unanswered"
    everybody = [dataclasses.replace(t, segments=(), source=t.image) for t in samples[:2]]
    nobody = scorer.collect(Group(trajectories=tuple(everybody), size=2, pending=(scorer(everybody),)))
    assert nobody.reward_N.isnan().all()
    # In evaluation the picture that was kept is the one that is measured.
    assert DVReward(Scripted((1.0, 0.5))).score(everybody[:1]).reward_N.tolist() == [0.75]
