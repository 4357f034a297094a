"""Self-reflective refinement: choice of the picture, rounds, credit, and contracts 2 and 3 in every round."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from project.models.packing import LatentBlock, PictureBlock, TextBlock, pack
from project.models.transforms import normalise
from project.rewards.base import Reward, RewardOutput
from project.rewards.scoring import Scorer
from project.samplers.guidance import Guidance, guide
from project.tasks.comparing import Comparing
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.redrawing import Redrawing
from project.tasks.self_reflection import SelfReflection
from project.trajectory import Advantages, Group, Prompt, SampleKey, Scores, Trajectory
from tests.helpers.sampling import at, roll, sde
from tests.helpers.threads import on_ranks

PROMPTS = [Prompt(id="a", text="a red circle"), Prompt(id="b", text="a green square left of a red circle")]
GROUP = 3
SIZE = dict(height=8, width=8)
GUIDANCE = Guidance(text=2.5, image=1.5, interval=(0.2, 0.95), renorm="text_channel")


class Brightness(Reward):
    """Mean level of the picture, NaN for the given prompts; counts what it was asked."""

    def __init__(self, silent=()):
        super().__init__()
        self.silent, self.asked = silent, 0

    def score(self, trajectories):
        self.asked += len(trajectories)
        levels = [math.nan if t.prompt.id in self.silent else t.image.pixels_HWC.float().mean() for t in trajectories]
        return RewardOutput(reward_N=torch.tensor([float(level) for level in levels]) / 255)


@pytest.fixture
def model(seeing_model):
    return seeing_model


@pytest.fixture
def sampler():
    return sde(8, 3, (1, 6))


def first(**changes):
    return ReasoningT2I(**{**SIZE, "max_tokens": 4, "guidance": Guidance(text=2.0, interval=(0.0, 1.0)), **changes})


def make_task(**changes):
    return SelfReflection(**{"first": first(), "max_tokens": 5, "top_p": 0.9, "guidance": GUIDANCE, **changes})


def keys(size=GROUP):
    return [SampleKey(seed=1, update=2, prompt=p.id, sample=g) for p in PROMPTS for g in range(size)]


def rolled(task, model, sampler, reward=None, evaluate=False, size=GROUP):
    steps = None if evaluate else sampler.steps(at(1, 2))
    return roll(task, model, PROMPTS, keys(size), sampler, steps, Scorer([reward or Brightness()]))


def scored(groups):
    return [dataclasses.replace(g, scores=Scorer([Brightness()]).collect(g), pending=()) for g in groups]


WORDING = "Requested: {prompt}. What is wrong?"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rounds": 3},
        {"rounds": 2, "train_first": True, "first_sampler": sde(5)},
        {"train_first": True, "first": first(think=False)},
        {"first": first(think=False), "wording": WORDING},
    ],
)
def test_ratio_is_one_in_every_round(model, sampler, changes):
    task = make_task(**changes)
    groups = rolled(task, model, sampler)
    assert len(groups) == task.rounds + task.train_first
    for group in groups:
        replay = task.replay(model, group.trajectories, sampler, context_gradient=True)
        text = (replay.text_log_prob_RT - replay.old_text_log_prob_RT)[replay.token_mask_RT]
        image = replay.image_log_prob_RK - replay.old_image_log_prob_RK
        assert bool(text.numel()) == (group.round > 0 or task.first.turn.think) and image.numel()
        assert torch.cat([text, image.flatten()]).expm1().abs().max() <= 1e-5 and image.expm1().abs().max() <= 1e-6


@pytest.mark.parametrize("mutation", ["image guidance", "renorm", "picture", "instruction", "wording"])
def test_what_is_replayed_otherwise_is_noticed(model, sampler, mutation):
    (group,) = rolled(make_task(), model, sampler)
    task, trajectories = make_task(), group.trajectories
    if mutation == "image guidance":
        task = make_task(guidance=dataclasses.replace(GUIDANCE, image=1.6))
    elif mutation == "renorm":
        task = make_task(guidance=dataclasses.replace(GUIDANCE, renorm="global"))
    elif mutation == "picture":
        darker = (trajectories[0].source.pixels_HWC * 0.9).to(torch.uint8)
        source = dataclasses.replace(trajectories[0].source, pixels_HWC=darker)
        trajectories = [dataclasses.replace(t, source=source) for t in trajectories]
    elif mutation == "wording":
        task = make_task(wording=WORDING)
    else:
        model.defaults = dataclasses.replace(model.defaults, reflect_prompt="{prompt}")
    replay = task.replay(model, trajectories, sampler, context_gradient=True)
    text = (replay.text_log_prob_RT - replay.old_text_log_prob_RT)[replay.token_mask_RT]
    image = replay.image_log_prob_RK - replay.old_image_log_prob_RK
    assert max(text.expm1().abs().max(), image.expm1().abs().max()) > 1e-4


@pytest.mark.parametrize("evaluate", [False, True])
def test_the_wording_takes_the_place_of_the_models_own(model, sampler, monkeypatch, evaluate):
    read = []
    encode = model.encode_text
    monkeypatch.setattr(model, "encode_text", lambda text: read.append(text) or encode(text))
    for wording in (None, WORDING):
        rolled(make_task(wording=wording), model, sampler, evaluate=evaluate, size=1 if evaluate else GROUP)
    asked = [text for text in read if text.startswith(("Requested", "reflect"))]
    usual = model.defaults.reflect_prompt
    assert set(asked) == {template.format(prompt=p.text) for template in (usual, WORDING) for p in PROMPTS}


def test_candidates_are_at_most_the_samples_of_a_prompt():
    assert make_task().candidates == 7, "as published"
    make_task().check_group(7), make_task(train_first=True).check_group(2)
    with pytest.raises(ValueError, match=r"candidates=7.*num_generations=6.*task.init_args.candidates to 6 or less"):
        make_task().check_group(6)


def test_candidates_that_would_be_one_picture_are_refused():
    alike = {"think": False, "shared_noise": True}
    with pytest.raises(ValueError, match=r"set first\.init_args.shared_noise to false"):
        make_task(first=first(**alike))
    make_task(first=first(**alike), candidates=1), make_task(first=first(**alike), train_first=True)


def test_all_samples_refine_the_worst_of_several_first_pictures(model, sampler):
    reward = Brightness()
    task = make_task(candidates=2)
    (group,) = rolled(task, model, sampler, reward)
    assert reward.asked == 2 * len(PROMPTS) + len(group), "every picture is judged once"
    drawn = roll(task.first, model, PROMPTS, keys(2), sampler, None)[0].trajectories
    levels = torch.tensor([t.image.pixels_HWC.float().mean() / 255 for t in drawn]).view(2, 2)
    for row in range(len(PROMPTS)):
        samples = slice(row * GROUP, (row + 1) * GROUP)
        assert {id(t.source) for t in group.trajectories[samples]} == {id(group.trajectories[row * GROUP].source)}
        torch.testing.assert_close(group.before_N[samples], levels[row].min().expand(GROUP))
    assert group.text_weight == pytest.approx(1 / 3), "1 / trained steps"
    assert make_task(text_weight=0.5)._text_weight(range(3)) == 0.5


def test_a_softmax_draw_prefers_the_worse_and_finds_every_judged_picture():
    task = make_task(pick="softmax", pick_temperature=0.2)
    rewards = torch.tensor([0.9, math.nan, 0.5, 0.3])
    picked = [task._pick(rewards, SampleKey(seed=n, update=0, prompt="a")) for n in range(600)]
    share = torch.softmax(-torch.tensor([0.9, 0.5, 0.3]) / 0.2, 0)
    for place, expected in zip((0, 2, 3), share.tolist(), strict=True):
        assert picked.count(place) / 600 == pytest.approx(expected, abs=0.06)
    assert 1 not in picked


def test_every_round_looks_at_the_picture_of_the_round_before(model, sampler):
    one, two = rolled(make_task(rounds=2), model, sampler)
    for before, after in zip(one.trajectories, two.trajectories, strict=True):
        assert after.source is before.image and after.round == 2 and before.round == 1
    first_noise = [t.texts[0].log_prob_T for t in one.trajectories]
    assert any(a.tolist() != t.texts[0].log_prob_T.tolist() for a, t in zip(first_noise, two.trajectories, strict=True))


def test_mixed_training_draws_the_first_pictures_once(model, sampler):
    mixed, refined = rolled(make_task(train_first=True), model, sampler)
    assert (mixed.round, refined.round) == (0, 1) and refined.log_prefix == "srr/1/"
    assert all(t.image.step_K.tolist() == list(sampler.steps(at(1, 2))) for t in mixed.trajectories)
    ours = {id(t.image) for t in mixed.trajectories}
    assert {id(t.source) for t in refined.trajectories} <= ours


class Says:
    """Makes some samples say that nothing is wrong."""

    def __init__(self, model, monkeypatch, wanted):
        task = SelfReflection
        monkeypatch.setattr(task, "_finds_nothing", lambda self, t: bool(t.segments) and t.key.sample in wanted)


def test_a_sample_that_finds_nothing_wrong_has_no_further_round(model, sampler, monkeypatch):
    Says(model, monkeypatch, wanted={0})
    task = make_task(rounds=3)
    one, two, three = rolled(task, model, sampler)
    assert all(len(t.segments) == 2 for t in one.trajectories), "the round itself is trained"
    for group in (two, three):
        assert [bool(t.segments) for t in group.trajectories] == [t.key.sample != 0 for t in group.trajectories]
    stopped = three.trajectories[0]
    assert stopped.image is one.trajectories[0].image
    assert two.metrics["stopped"].value == pytest.approx(1 / GROUP)
    credited = task.credit(scored([one, two, three]))
    reward_N = credited[1].scores.reward_N
    assert reward_N[::GROUP].isnan().all(), "what was not drawn has no reward of its own"
    assert two.spare == one.trajectories[:1], "an idle rank replays the same kind of forward"


def test_in_evaluation_the_picture_is_kept(model, sampler, monkeypatch):
    Says(model, monkeypatch, wanted={0})
    first_group, one, two = rolled(make_task(rounds=2), model, sampler, evaluate=True, size=1)
    for a, b, c in zip(first_group.trajectories, one.trajectories, two.trajectories, strict=True):
        assert b.image is a.image and b.texts and not b.images
        assert c.image is a.image and not c.segments


def test_when_all_stop_the_round_is_empty_and_the_run_goes_on(model, sampler, monkeypatch):
    Says(model, monkeypatch, wanted={0, 1, 2})
    task = make_task(rounds=2, credit="own")
    one, two = scored(rolled(task, model, sampler))
    assert not any(t.segments for t in two.trajectories)
    credited = task.credit([one, two])
    assert credited[1].scores.reward_N.isnan().all()
    advantage = torch.zeros(len(two))
    idle = dataclasses.replace(
        credited[1], advantages=Advantages(image_N=advantage, text_N=advantage, valid_N=torch.zeros(len(two)) > 0)
    )
    (batch,) = idle.micro_batches(8, at_least=1)
    assert batch.weight == 0
    replay = task.replay(model, batch.trajectories, sampler, context_gradient=True)
    assert replay.image_log_prob_RK.requires_grad and replay.text_log_prob_RT.requires_grad


def test_a_prompt_whose_first_pictures_are_not_judged_is_dropped_alone(model, sampler):
    task = make_task()
    groups = scored(rolled(task, model, sampler, Brightness(silent=("a",))))
    (credited,) = task.credit(groups)
    # Whatever improved is on the second prompt.
    assert credited.scores.reward_N[:GROUP].isnan().all()
    assert credited.metrics["unjudged"].value == GROUP
    improved = groups[0].scores.reward_N[GROUP:] > groups[0].before_N[GROUP:]
    assert credited.scores.reward_N[GROUP:].isfinite().all() == bool(improved.any())


def test_cut_off_and_empty_reflections_are_counted(model, sampler):
    (group,) = rolled(make_task(max_tokens=1), model, sampler)
    texts = [t.texts[0] for t in group.trajectories]
    assert group.metrics["text/cut_off"].value == sum(not t.finished for t in texts) / len(texts) > 0
    assert group.metrics["text/empty"].value == sum(t.text == "" for t in texts) / len(texts)
    assert group.metrics["text/tokens"].value == sum(len(t.ids_T) for t in texts) / len(texts)


def test_what_says_that_nothing_is_wrong_may_be_written_in_capitals(model, sampler):
    (group,) = rolled(make_task(), model, sampler)
    trajectory = group.trajectories[0]
    text = dataclasses.replace(trajectory.texts[0], text="Nothing IS wrong.")
    says = dataclasses.replace(trajectory, segments=(text, trajectory.image))
    assert make_task(right="Nothing is Wrong")._finds_nothing(says)
    assert not make_task(right="all right")._finds_nothing(says)


@pytest.mark.parametrize("evaluate", [False, True])
def test_a_picture_with_a_reward_above_the_bar_is_refined_no_further(model, sampler, evaluate):
    def rounds(**changes):
        task = make_task(rounds=2, right=None, **changes)
        assert task.evaluates_with_scores == bool(changes)
        return rolled(task, model, sampler, evaluate=evaluate, size=1 if evaluate else GROUP)[-2:]

    rewards = scored(rounds()[:1])[0].scores.reward_N
    bar = float(rewards.median())
    above = (rewards > bar).tolist()
    assert True in above and False in above
    one, two = rounds(stop_above=bar)
    assert [t.stopped for t in two.trajectories] == above and not any(t.stopped for t in one.trajectories)


def test_first_pictures_may_have_a_sampler_of_their_own(model, sampler):
    own = sde(5, 2, (0, 3))
    mixed, refined = rolled(make_task(train_first=True, first_sampler=own), model, sampler)
    assert all(t.image.step_K.tolist() == list(own.steps(at(1, 2))) for t in mixed.trajectories)
    assert all(t.image.step_K.tolist() == list(sampler.steps(at(1, 2))) for t in refined.trajectories)
    usual = roll(first(), model, PROMPTS, keys(1), own, None)[0].trajectories
    evaluated = rolled(make_task(train_first=True, first_sampler=own), model, sampler, evaluate=True, size=1)[0]
    (untrained,) = rolled(make_task(first_sampler=own, candidates=1), model, sampler)
    for n, theirs in enumerate(usual):
        for image in (evaluated.trajectories[n].image, untrained.trajectories[n * GROUP].source):
            assert not len(image.step_K), "an evaluation, and what is not trained, follows the ODE"
            torch.testing.assert_close(image.final_LD, theirs.image.final_LD, atol=1e-4, rtol=1e-4)


def test_first_pictures_that_are_not_trained_follow_the_ode(model, sampler):
    (group,) = rolled(make_task(candidates=1), model, sampler)
    usual = roll(first(), model, PROMPTS, keys(1), sampler, None)[0].trajectories
    for n, theirs in enumerate(usual):
        source = group.trajectories[n * GROUP].source
        assert not len(source.step_K)
        torch.testing.assert_close(source.final_LD, theirs.image.final_LD, atol=1e-4, rtol=1e-4)


def test_groups_bear_what_the_loss_and_the_logs_need(model, sampler):
    mixed, one, two = rolled(make_task(rounds=2, train_first=True, candidates=2, text_weight=0.5), model, sampler)
    assert (mixed.task, mixed.log_prefix, mixed.label, mixed.text_weight) == ("draw", "", None, 1.0)
    assert [(g.task, g.log_prefix, g.label, g.text_weight) for g in (one, two)] == [
        ("srr", "srr/1/", "round1", 0.5),
        ("srr", "srr/2/", "round2", 0.5),
    ]
    assert len(mixed) == len(PROMPTS) * GROUP, "all are drawn, whatever `candidates` says"
    evaluated = rolled(make_task(), model, sampler, evaluate=True, size=1)
    assert evaluated[1].text_weight == 1.0, "no steps are trained"


def test_the_gate_is_for_evaluation(model, sampler):
    (group,) = rolled(make_task(gate=-1.0), model, sampler)
    assert not any(t.stopped for t in group.trajectories)
    assert make_task(gate=0.5).evaluates_with_scores and not make_task().evaluates_with_scores
    with pytest.raises(ValueError, match="one sample a prompt"):
        rolled(make_task(), model, sampler, evaluate=True)


def test_every_prompt_picks_by_a_number_of_its_own():
    task, rewards = make_task(pick="softmax"), torch.zeros(4)
    picked = {task._pick(rewards, SampleKey(seed=0, update=0, prompt=str(n))) for n in range(20)}
    assert picked == {0, 1, 2, 3}


def judged(rewards, before, segments=(1,)):
    """A group of one sample per reward, with these rewards; `None` = it had stopped."""
    prompt = Prompt(id="a", text="a")
    return Group(
        trajectories=tuple(
            Trajectory(
                prompt=prompt,
                key=SampleKey(seed=0, update=0, prompt="a", sample=n),
                segments=() if value is None else segments,
            )
            for n, value in enumerate(rewards)
        ),
        size=len(rewards),
        task="srr",
        round=1,
        before_N=torch.tensor(before),
        scores=Scores(
            reward_N=torch.tensor([0.0 if value is None else value for value in rewards]),
            text_reward_N=torch.zeros(len(rewards)),
        ),
    )


@pytest.mark.parametrize(
    ("credit", "expected"),
    [
        # First picture 0.5; the third sample stops after the first round.
        ("own", [[0.6, 0.5, 0.7], [0.9, 0.55, math.nan]]),
        ("last", [[0.9, 0.55, 0.7], [0.9, 0.55, math.nan]]),
        ("improvement", [[0.1, 0.0, 0.2], [0.3, 0.15, math.nan]]),
    ],
)
def test_credit_of_the_rounds(credit, expected):
    rounds = [judged([0.6, 0.4, 0.7], [0.5] * 3), judged([0.9, 0.55, None], [0.5] * 3)]
    task = make_task(rounds=2, credit=credit)
    result = task.credit(rounds)
    for group, wanted in zip(result, expected, strict=True):
        torch.testing.assert_close(group.scores.reward_N, torch.tensor(wanted), equal_nan=True)


def test_every_round_is_rectified_over_all_ranks():
    """Nothing improved here, but on the other rank it did: the terms stay."""
    rounds = [judged([0.2, 0.4], [0.5] * 2)]
    assert make_task(credit="own").credit(rounds)[0].scores.reward_N.isnan().all()
    elsewhere = [judged([0.8, 0.4], [0.5] * 2)]
    (kept,), _ = on_ranks(2, lambda ranks: make_task(credit="own").credit([rounds, elsewhere][ranks.rank], ranks))
    torch.testing.assert_close(kept.scores.reward_N, torch.tensor([0.5, 0.5]))


def test_improvement_after_different_pictures():
    """In round 2 the samples refine pictures of their own: who got worse is never above who did not."""
    rounds = [judged([0.90, 0.20, 0.25, 0.90], [0.15] * 4), judged([0.85, 0.10, 0.30, 0.95], [0.15] * 4)]
    _, second = make_task(rounds=2, credit="improvement").credit(rounds)
    torch.testing.assert_close(second.scores.reward_N, torch.tensor([0.0, 0.0, 0.05, 0.05]))


def test_the_gate_refines_only_what_the_judge_doubts(model, sampler):
    levels = Brightness().score(rolled(make_task(), model, sampler, evaluate=True, size=1)[0].trajectories).reward_N
    threshold = float(levels.mean())
    _, refined = rolled(make_task(gate=threshold), model, sampler, evaluate=True, size=1)
    assert [bool(t.segments) for t in refined.trajectories] == (levels < threshold).tolist()
    assert any(t.segments for t in refined.trajectories) and not all(t.segments for t in refined.trajectories)
    with pytest.raises(ValueError, match="name a reward"):
        roll(make_task(gate=0.5), model, PROMPTS, keys(1), sampler, None)


def test_redrawing_keeps_the_best_so_far_and_begins_with_the_usual_picture(model, sampler):
    reward = Brightness()
    groups = rolled(Redrawing(first(), draws=3, keep="both"), model, sampler, reward, evaluate=True, size=1)
    usual = rolled(first(), model, sampler, evaluate=True, size=1)
    assert [group.label for group in groups] == [None, "last2", "best2", "last3", "best3"]
    for ours, theirs in zip(groups[0].trajectories, usual[0].trajectories, strict=True):
        assert torch.equal(ours.image.pixels_HWC, theirs.image.pixels_HWC)
    one, two, best2, three, best3 = (reward.score(group.trajectories).reward_N for group in groups)
    assert not torch.equal(one, two) and not torch.equal(two, three)
    torch.testing.assert_close(best2, torch.maximum(one, two))
    torch.testing.assert_close(best3, torch.maximum(best2, three))
    for keep, labels in (("best", [None, "best2"]), ("last", [None, "last2"])):
        made = rolled(Redrawing(first(), keep=keep), model, sampler, evaluate=True, size=1)
        assert [group.label for group in made] == labels


def test_refining_and_redrawing_are_compared_from_the_same_first_pictures(model, sampler):
    both = Comparing([make_task(rounds=2), Redrawing(first(), draws=2)])
    groups = rolled(both, model, sampler, evaluate=True, size=1)
    assert [group.label for group in groups] == [None, "round1", "round2", "best2"]
    assert groups[1].trajectories[0].source is groups[0].trajectories[0].image
    gated = Comparing([make_task(), make_task(right=None), make_task(rounds=2)])
    groups = rolled(gated, model, sampler, evaluate=True, size=1)
    assert [group.label for group in groups] == [None, "round1", "round1.2", "round1.3", "round2"]
    with pytest.raises(ValueError, match="evaluation"):
        rolled(both, model, sampler)
    with pytest.raises(ValueError, match="at least one"):
        Comparing([])


# ----------------------------------------------------------------- contract 3, K = 2


def gradients(model, task, sampler, groups, size):
    model.zero_grad()
    for number, group in enumerate(groups, start=1):
        weights = number * torch.linspace(-1, 1.5, len(group))
        for start in range(0, len(group), size):
            part = slice(start, start + size)
            replay = task.replay(model, group.trajectories[part], sampler, context_gradient=True)
            text = (replay.text_log_prob_RT * replay.token_mask_RT).sum(1)
            (weights[part] * (text + 5 * replay.image_log_prob_RK.sum(1))).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def slow_gradients(model, task, sampler, groups):
    """Every log-probability from whole sequences of its own, packed as in pre-training; nothing cached or shared."""
    model.zero_grad()
    total = torch.zeros(())
    for number, group in enumerate(groups, start=1):
        for weight, t in zip(number * torch.linspace(-1, 1.5, len(group)), group.trajectories, strict=True):
            pixels = normalise(t.source.pixels_HWC)
            grid = model.latent_grid(**SIZE)
            system = TextBlock(ids_T=model.encode_text(model.defaults.think_prompt))
            with torch.no_grad():
                clean = model.encode_image(pixels[None])[0]
            base = [system, LatentBlock(latents_LD=clean, grid=grid), PictureBlock(pixels_CHW=pixels)]
            asked = TextBlock(ids_T=model.encode_text(model.defaults.reflect_prompt.format(prompt=t.prompt.text)))
            ids = t.texts[0].ids_T
            written = TextBlock(ids_T=ids[:-1] if t.texts[0].finished else ids, loss=True)
            packed = pack(model, [[*base, asked, written]])
            output = model(packed.query, [])
            log_probs = torch.log_softmax(output.logits.float(), -1)[: len(ids)]
            total = total + weight * log_probs.gather(1, ids[:, None]).sum()
            for k in range(len(t.image.step_K)):
                x, step = t.image.latents_KLD[k], t.image.step_K[k : k + 1]
                sigma = sampler.sigma_N[step].item()
                noised = LatentBlock(latents_LD=x, grid=grid, sigma=sigma, noise_LD=x)
                branches = [[*base, asked, written], base, [system, asked]]
                main, text_free, image_free = (
                    model(pack(model, [[*blocks, noised]]).query, []).velocity_RLD[:, -len(x) :] for blocks in branches
                )
                guidance = task.turn.canvas.guidance
                v = guide(main, text_free, image_free, guidance) if guidance.active(sigma) else main
                log_prob = sampler.log_prob(x[None], v, step, t.image.next_KLD[k : k + 1]).log_prob_R
                total = total + 5 * weight * log_prob.sum()
    total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [1, 4, 6])
def test_gradients_of_two_rounds_equal_a_slow_reference(model, sampler, size):
    task = make_task(rounds=2)
    groups = rolled(task, model, sampler)
    fast = gradients(model, task, sampler, groups, size)
    slow = slow_gradients(model, task, sampler, groups)
    assert fast.keys() == slow.keys()
    norm = math.sqrt(sum(g.square().sum().item() for g in slow.values()))
    difference = math.sqrt(sum((fast[n] - g).square().sum().item() for n, g in slow.items()))
    assert difference <= 1e-5 * norm, (difference / norm, size)


def test_bad_settings_are_named():
    for changes, message in (
        ({"rounds": 0}, "at least 1"),
        ({"credit": "all"}, "own, last, improvement"),
        ({"pick": "best"}, "worst or softmax"),
        ({"wording": "What is wrong?"}, r"write \{prompt\}"),
    ):
        with pytest.raises(ValueError, match=message):
            make_task(**changes)
