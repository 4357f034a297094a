"""A learned stop: credit by hand-computed numbers, rollout, and gradients where some samples draw and others keep."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from project.callbacks.on_policy_gate import OnPolicyGate
from project.callbacks.panels import markdown, panel_HWC
from project.objectives.grpo import GRPO
from project.objectives.gspo_text import GSPOText
from project.objectives.guard_image import GuardImage
from project.objectives.joint import Joint
from project.objectives.nft_image import NFTImage
from project.objectives.velocity_kl import VelocityKL
from project.rewards.base import Reward, RewardOutput
from project.rewards.random import RandomReward
from project.rewards.scoring import Scorer
from project.samplers.guidance import Guidance
from project.tasks import turn
from project.tasks.drawing import given_picture
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.rectification import LearnedStop
from project.tasks.self_reflection import SelfReflection
from project.training.advantages import advantages
from project.trajectory import Advantages, Group, SampleKey, Scores, TextSegment, Trajectory
from tests.helpers.policies import TinyBagel
from tests.helpers.sampling import at, ode, roll, sde
from tests.helpers.threads import on_ranks
from tests.helpers.tiny_module import PROMPTS, make_module, plain_descent, train

SIZE = {"height": 8, "width": 8}
GUIDANCE = Guidance(text=2.0, image=1.5, interval=(0.0, 1.0), renorm="text_channel")
STOP = LearnedStop(right_from=0.9, bonus=0.05)
NAN = math.nan
GROUP = 4


class SomeStop(SelfReflection):
    """Finds nothing wrong with the pictures of these samples."""

    stopping: tuple[int, ...] = (0, 2)

    def _finds_nothing(self, trajectory):
        return bool(trajectory.segments) and trajectory.key.sample in self.stopping


class AllStop(SomeStop):
    stopping = (0, 1, 2, 3)


def make_task(kind=SomeStop, learned_stop=STOP, **changes):
    first = changes.pop("first", ReasoningT2I(**SIZE, max_tokens=3, guidance=Guidance(text=2.0, interval=(0.0, 1.0))))
    settings = {"candidates": 2, "max_tokens": 5, "guidance": GUIDANCE, "rectification": None, **changes}
    return kind(first, learned_stop=learned_stop, **settings)


# ----------------------------------------------------------------- credit

TEXT = TextSegment(
    ids_T=torch.tensor([1]), log_prob_T=torch.zeros(1), entropy_T=torch.zeros(1), finished=True, text="nothing is wrong"
)
PICTURE = given_picture(np.zeros((8, 8, 3), np.uint8))


def judged(rewards, before, does):
    """A scored group: `does` has a letter for each sample, d = drew, k = kept its picture, s = had stopped before."""
    segments = {"d": (TEXT, PICTURE), "k": (TEXT,), "s": ()}
    return Group(
        trajectories=tuple(
            Trajectory(
                prompt=PROMPTS[0],
                key=SampleKey(seed=0, update=0, prompt="0", sample=n),
                segments=segments[letter],
                source=PICTURE,
                round=1,
            )
            for n, letter in enumerate(does)
        ),
        size=len(rewards),
        task="srr",
        round=1,
        before_N=torch.tensor(before),
        scores=Scores(reward_N=torch.tensor(rewards), text_reward_N=torch.zeros(len(rewards))),
    )


def credited(*rounds, **changes):
    return make_task(rounds=len(rounds), **{"rectification": "before", "credit": "own", **changes}).credit(rounds)


def rewards(groups):
    return [pytest.approx(group.scores.reward_N.tolist(), nan_ok=True) for group in groups]


def told(group):
    return {name: metric.value for name, metric in group.metrics.items()}


def test_a_right_picture_that_is_kept_is_worth_more_than_one_that_is_redrawn_for_nothing():
    """The picture had 0.95. What a judge says when it is asked again (0.2) does not count."""
    (group,) = credited(judged([0.97, 0.90, 0.20, 0.95], [0.95] * 4, "ddkd"))
    assert rewards([group]) == [[0.97, 0.95, 1.0, 0.95]]
    assert told(group) == {
        "raw_reward": pytest.approx((0.97 + 0.90 + 0.95 + 0.95) / 4),
        "gain": pytest.approx((0.02 - 0.05) / 4),
        "false_positives": 0.5,
        "misled": 0.0,
        "unjudged": 0.0,
        "skipped": 0.0,
        "stops": 0.25,
        "true_stops": 1.0,
        "right_kept": 0.25,
    }


def test_a_wrong_picture_that_is_kept_is_a_false_positive():
    (group,) = credited(judged([0.7, 0.4, 0.99, 0.6], [0.5] * 4, "ddkd"))
    assert rewards([group]) == [[0.7, 0.5, 0.5, 0.6]]
    found = told(group)
    assert (found["stops"], found["true_stops"], found["false_positives"]) == (0.25, 0.0, 0.5)
    assert math.isnan(found["right_kept"]), "no picture was right"


def test_a_picture_is_right_from_the_bar_on():
    (group,) = credited(judged([0.0, 0.9], [0.875, 0.875], "kd"), learned_stop=LearnedStop(right_from=0.875, bonus=0.5))
    assert rewards([group]) == [[1.375, 0.9]]


def test_without_a_bonus_a_right_stop_earns_what_the_picture_had():
    (group,) = credited(judged([0.0, 0.97], [0.95] * 2, "kd"), learned_stop=LearnedStop(right_from=0.9))
    assert rewards([group]) == [[0.95, 0.97]]


@pytest.mark.parametrize(
    ("credit", "expected"),
    [
        # First pictures 0.5. One: 0.95, kept (right). Two: 0.7, kept (wrong). Three: kept (wrong). Four: 0.92, 0.94.
        ("own", [[0.95, 0.7, 0.5, 0.92], [1.0, 0.7, NAN, 0.94]]),
        ("last", [[0.95, 0.7, 0.5, 0.94], [1.0, 0.5, NAN, 0.94]]),
        ("improvement", [[0.45, 0.2, 0.0, 0.42], [0.05, 0.0, NAN, 0.02]]),
    ],
)
def test_credit_of_two_rounds(credit, expected):
    one = judged([0.95, 0.7, 0.1, 0.92], [0.5] * 4, "ddkd")
    two = judged([0.3, 0.3, 0.3, 0.94], [0.5] * 4, "kksd")
    groups = credited(one, two, credit=credit)
    assert expected == rewards(groups)
    assert [told(group)["stops"] for group in groups] == [0.25, pytest.approx(2 / 3)]
    assert [told(group)["true_stops"] for group in groups] == [0.0, 0.5]
    assert told(groups[1])["right_kept"] == 0.5


def test_a_right_stop_after_a_round_that_harmed_is_right_all_the_same():
    """`last` compares with the first picture (0.95); 0.92 is below it, and still a picture to stop at."""
    groups = credited(judged([0.92, 0.97], [0.95] * 2, "dd"), judged([0.0, 0.96], [0.95] * 2, "kd"), credit="last")
    assert rewards(groups) == [[0.95, 0.96], [0.97, 0.96]]


def test_right_stops_alone_are_no_skipped_update_and_wrong_ones_are():
    (right,) = credited(judged([0.0] * 3, [0.95] * 3, "kkk"))
    assert rewards([right]) == [[1.0] * 3] and told(right)["skipped"] == 0
    (wrong,) = credited(judged([0.99] * 3, [0.5] * 3, "kkk"))
    assert rewards([wrong]) == [[NAN] * 3] and told(wrong)["skipped"] == 1


def test_a_kept_picture_without_a_reward_is_dropped_alone():
    (group,) = credited(judged([0.99, 0.7, 0.9, 0.4], [NAN, NAN, 0.5, 0.5], "kddd"))
    assert rewards([group]) == [[NAN, NAN, 0.9, 0.5]] and told(group)["unjudged"] == 2
    (again,) = credited(judged([NAN, 0.4], [0.95, 0.95], "kd"))
    assert rewards([again]) == [[1.0, 0.95]], "its reward is known, whatever becomes of a second question"


def test_credit_is_over_all_ranks():
    """Nothing improved here, and the stop is wrong; on the other rank a right picture was kept."""
    here, there = judged([0.99, 0.4], [0.5] * 2, "kd"), judged([0.0, 0.9], [0.95] * 2, "kd")
    assert rewards(credited(here)) == [[NAN, NAN]]
    (mine,), (theirs,) = on_ranks(
        2, lambda ranks: make_task(credit="own", rectification="before").credit([[here], [there]][ranks.rank], ranks)
    )
    assert rewards([mine, theirs]) == [[0.5, 0.5], [1.0, 0.95]]
    assert told(mine) == told(theirs) and told(mine)["true_stops"] == 0.5


def test_without_rectification_only_the_bonus_is_left():
    (group,) = credited(judged([0.0, 0.3], [0.95, 0.5], "kd"), rectification=None)
    assert rewards([group]) == [[1.0, 0.3]]


def test_a_stop_has_no_part_in_the_comparison_of_pictures():
    """Two samples that kept their picture by the same words have no picture to compare: the std is of the others'."""
    group = judged([0.2, 0.4, 0.0, 0.0], [0.3] * 4, "ddkk")
    context_N = group.context_N
    assert context_N[0] == context_N[1] and len(set(context_N.tolist())) == 3
    better = advantages(
        torch.tensor([0.2, 0.4, 0.3, 0.3]), torch.zeros(4), 4, scale="group", eps=0.0, image_context_N=context_N
    )
    assert better.image_N.tolist() == pytest.approx([-1, 1, 0, 0])


@pytest.mark.parametrize("changes", [{"think": False}, {"right": None}])
def test_a_stop_needs_words(changes):
    with pytest.raises(ValueError, match=r"set think to true and give `right` its words"):
        make_task(**changes)
    with pytest.raises(ValueError, match=r"bonus=-0.1: .* give 0 or more"):
        LearnedStop(right_from=0.9, bonus=-0.1)


# ----------------------------------------------------------------- rollout


class Brightness(Reward):
    def score(self, trajectories):
        return RewardOutput(reward_N=torch.stack([t.image.pixels_HWC.float().mean() / 255 for t in trajectories]))


@pytest.fixture
def model(seeing_model):
    return seeing_model


@pytest.fixture
def sampler():
    return sde(8, 3, (1, 6))


def keys(size=GROUP):
    return [SampleKey(seed=1, update=2, prompt=p.id, sample=g) for p in PROMPTS[:2] for g in range(size)]


def rolled(task, model, sampler, **others):
    return roll(task, model, PROMPTS[:2], keys(), sampler, sampler.steps(at(1, 2)), Scorer([Brightness()]), **others)


def test_nothing_is_drawn_where_nothing_is_wrong(model, sampler, monkeypatch):
    rows = []
    draw = turn.draw
    monkeypatch.setattr(
        turn,
        "draw",
        lambda model, contexts, keys, *a, **k: rows.append(len(keys)) or draw(model, contexts, keys, *a, **k),
    )
    one, two = rolled(make_task(rounds=2), model, sampler)
    assert rows == [4, 4, 4], "the candidates, then half of the samples in each round"
    drawn, _ = rolled(make_task(rounds=2, learned_stop=None), model, sampler)
    for ours, then, theirs in zip(one.trajectories, two.trajectories, drawn.trajectories, strict=True):
        assert ours.texts[0].ids_T.tolist() == theirs.texts[0].ids_T.tolist()
        kept = ours.key.sample in SomeStop.stopping
        assert (ours.kept, ours.stopped, then.stopped) == (kept, False, kept)
        if kept:
            assert ours.image is ours.source and then.image is ours.source
        else:
            torch.testing.assert_close(ours.image.final_LD, theirs.image.final_LD, atol=1e-4, rtol=1e-4)
    assert one.metrics["text/tokens"].count == len(one)


def test_what_says_nothing_of_the_kind_is_drawn_to_the_bit(model, sampler):
    class NobodyStops(SomeStop):
        stopping = ()

    ours, theirs = (rolled(make_task(NobodyStops, stop), model, sampler)[0] for stop in (STOP, None))
    for one, other in zip(ours.trajectories, theirs.trajectories, strict=True):
        assert torch.equal(one.image.final_LD, other.image.final_LD)


def test_samples_without_a_picture_go_with_any_window():
    def image(start):
        return dataclasses.replace(PICTURE, step_K=torch.arange(start, start + 2))

    segments = [(TEXT,), (TEXT, image(0)), (TEXT,), (TEXT, image(0)), (TEXT,), (TEXT, image(3)), (TEXT,)]
    group = judged([0.5] * 7, [0.5] * 7, "k" * 7)
    nothing = torch.zeros(7)
    group = dataclasses.replace(
        group,
        trajectories=tuple(
            dataclasses.replace(t, segments=s) for t, s in zip(group.trajectories, segments, strict=True)
        ),
        advantages=Advantages(image_N=nothing, text_N=nothing, valid_N=nothing == 0),
    )
    parts = [[t.key.sample for t in batch.trajectories] for batch in group.micro_batches(3)]
    assert parts == [[0, 1, 2], [3, 4], [5, 6]]


def test_the_panel_shows_what_was_kept(model, sampler):
    (group,) = rolled(make_task(), model, sampler)
    height, width, _ = panel_HWC(group, range(GROUP)).shape
    assert height > 0 < width and "not scored" in markdown(group, range(GROUP))


# ----------------------------------------------------------------- replay


def gradients(model, replays, image_weight_N, text_weight_N):
    """Of a weighted sum of log-probabilities; `replays` come with the places of their samples."""
    model.zero_grad()
    for places, replay in replays:
        text_B = (replay.text_log_prob_RT * replay.token_mask_RT).sum(1)
        image_R = 5 * replay.image_log_prob_RK.sum(1)
        of_pictures = (image_weight_N[places][replay.image_sample_R] * image_R).sum()
        ((text_weight_N[places] * text_B).sum() + of_pictures).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("exact", [True, False], ids=["context gradient", "context cut"])
def test_gradients_are_those_of_the_texts_and_of_the_pictures_that_were_drawn(model, sampler, size, exact):
    """The reference draws all pictures again and gives those that are kept here no weight."""

    def of(task, weight_N):
        (group,) = rolled(task, model, sampler)
        parts = [slice(start, start + size) for start in range(0, len(group), size)]
        replays = (
            (part, task.replay(model, group.trajectories[part], sampler, context_gradient=exact)) for part in parts
        )
        return gradients(model, replays, weight_N, torch.linspace(-1, 1.5, len(group)))

    weight_N = torch.linspace(1, -2, 2 * GROUP)
    stops_N = torch.tensor([key.sample in SomeStop.stopping for key in keys()])
    ours = of(make_task(), weight_N)
    theirs = of(make_task(learned_stop=None), weight_N.where(~stops_N, 0.0))
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_replay_without_pictures_has_no_row_and_all_forwards(model, sampler):
    (group,) = rolled(make_task(AllStop), model, sampler)
    seen = []
    hook = model.register_forward_pre_hook(lambda module, args: seen.append(args[0].latents_RLD is not None))
    replay = make_task().replay(model, group.trajectories, sampler, context_gradient=True)
    none, seen[:] = list(seen), []
    (drawn,) = rolled(make_task(learned_stop=None), model, sampler)
    seen.clear()
    make_task().replay(model, drawn.trajectories, sampler, context_gradient=True)
    hook.remove()
    assert none == seen, "ranks that have pictures and ranks that have none make the same forwards"
    assert replay.image_log_prob_RK.shape == (0, 3) == replay.old_image_log_prob_RK.shape == replay.step_mask_RK.shape
    assert replay.image_sample_R.shape == (0,) and replay.clean_RLD.shape[0] == 0
    trained = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.autograd.grad(replay.image_log_prob_RK.sum(), trained, allow_unused=True)
    reached = [g for g in gradient if g is not None]
    assert reached and not any(g.any() for g in reached), "zeros, and no NaN"


# ----------------------------------------------------------------- whole updates


class OfTheText(RandomReward):
    """So that texts have an advantage where all samples keep one picture."""

    def __init__(self, seed):
        super().__init__(seed)
        self.text_only = True


def updated(task, rewards=None, sampler=None, **settings):
    """The weights after updates, and what was logged."""
    defaults = {"policy": TinyBagel(), "optimizer": plain_descent, "micro_batch_size": 3, "num_generations": GROUP}
    module = make_module(task=task, sampler=sampler or sde(6, 3, (0, 4)), **defaults | settings)
    rewards = rewards or [RandomReward(seed=2), OfTheText(seed=7)]
    trainer = train(module, updates=1, rewards=rewards, callbacks=[OnPolicyGate()], batches=[PROMPTS[:2]])
    return {n: p.detach().clone() for n, p in module.named_parameters()}, dict(trainer.callback_metrics)


FORWARD = {"objective": Joint(NFTImage(), GSPOText(), image_penalty=VelocityKL(0.5, at="noised")), "sampler": ode(6)}
VARIANTS = {
    "plain": {},
    "context": {"image_baseline": "context"},
    "sequences": {"objective": GRPO(text_reduction="sequences", kl_image=0.5, kl_text=0.5)},
    "twice": {"per_rollout": 2},
    "guard": {"objective": Joint(GuardImage(), GSPOText())},
    "forward": FORWARD,
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("kind", [SomeStop, AllStop])
def test_an_update_does_not_depend_on_the_micro_batch(kind, name):
    settings = VARIANTS[name]
    task = make_task(kind, rounds=2 if kind is SomeStop else 1, train_first=True, credit="own")
    whole, logged = updated(task, micro_batch_size=24, **settings)
    apart, _ = updated(task, micro_batch_size=1, **settings)
    assert logged["update/skipped"] == 0 and logged["grad_norm"] > 1e-3
    assert not [name for name, value in logged.items() if not math.isfinite(value)]
    assert ("srr/1/loss/image" in logged) == (kind is SomeStop) and "srr/1/loss/text" in logged
    assert logged["srr/1/stops"] == (0.5 if kind is SomeStop else 1.0)
    for weight, value in whole.items():
        torch.testing.assert_close(apart[weight], value, atol=1e-6, rtol=1e-5, msg=weight)


@pytest.mark.parametrize("exact", [True, False], ids=["context gradient", "context cut"])
@pytest.mark.parametrize("kind", [SomeStop, AllStop])
def test_a_cut_micro_batch_gives_the_same_update(kind, exact):
    task = make_task(kind)
    settings = {"context_gradient": exact, "objective": GRPO(kl_image=0.5, kl_text=0.5)}
    whole, logged = updated(task, **settings)
    cut, cut_logged = updated(task, steps_per_backward=2, **settings)
    assert logged["grad_norm"] > 1e-3 and logged.keys() == cut_logged.keys()
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("settings", [{"objective": GRPO(kl_image=0.5)}, FORWARD], ids=["steps", "forward"])
def test_where_all_stop_no_term_of_the_image_loss_is_left(settings):
    """What only draws stays as it is; with pictures drawn it moves."""
    settings = {**settings, "context_gradient": False, "per_rollout": 2}
    start = TinyBagel().load().llm2vae.weight
    (kept, logged), (drawn, _) = (updated(make_task(AllStop, stop), **settings) for stop in (STOP, None))
    assert torch.equal(kept["policy.llm2vae.weight"], start) and logged["grad_norm"] > 1e-3
    assert not torch.equal(drawn["policy.llm2vae.weight"], start)


class FirstIs(Reward):
    """First pictures have this reward; refined ones are worse."""

    def __init__(self, reward):
        super().__init__()
        self.reward = reward

    def score(self, trajectories):
        worse = [self.reward - (0.1 + 0.01 * t.key.sample if t.images and t.round else 0) for t in trajectories]
        return RewardOutput(reward_N=torch.tensor(worse))


@pytest.mark.parametrize(("reward", "skipped"), [(0.95, 0), (0.5, 1)])
def test_stopping_is_learned_where_the_picture_is_right(reward, skipped):
    """All redrawings fail. On a right picture those who stop have the better texts; on a wrong one nobody has."""
    task = make_task(rectification="before", credit="own")
    module = make_module(policy=TinyBagel(), task=task, optimizer=plain_descent, num_generations=GROUP, max_skipped=1)
    found = []
    module.task.credit = lambda *a, credit=task.credit: found.append(credit(*a)) or found[-1]
    logged = train(module, updates=1, rewards=[FirstIs(reward)], batches=[PROMPTS[:2]]).callback_metrics
    assert logged["update/skipped"] == logged["srr/1/skipped"] == skipped
    expected = [NAN] * 8 if skipped else [1.0, 0.95, 1.0, 0.95] * 2
    assert [expected] == rewards(found[0])
    assert logged["srr/1/true_stops"] == 1 - skipped
