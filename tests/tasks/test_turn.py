"""What the settings of a turn promise, for every task that is made of turns."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from project.models.transforms import to_uint8
from project.rewards.base import Reward, RewardOutput
from project.rewards.scoring import Scorer
from project.samplers.guidance import Guidance
from project.tasks.base import Rollout
from project.tasks.drawing import Canvas
from project.tasks.editing import Editing
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.request import Request
from project.tasks.self_reflection import SelfReflection
from project.tasks.turn import Turn
from project.trajectory import Advantages, Prompt, SampleKey
from tests.helpers.backbones import grey_picture
from tests.helpers.policies import dense_model
from tests.helpers.sampling import ode, roll, sde

PROMPTS = [Prompt(id=name, text=text) for name, text in (("a", "a red circle"), ("b", "two green square"))]
SIZE = dict(height=8, width=8)
ODD = dict(
    think=False, max_tokens=7, temperature=0.3, top_p=0.4, guidance=Guidance(text=1.5, interval=(0.1, 0.7)),
    shared_noise=True,
)  # fmt: skip
"""No setting as it is by default."""


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return dense_model()


def keys(prompts=PROMPTS, size=3, **changes):
    settings = dict(seed=1, update=2) | changes
    return [SampleKey(prompt=p.id, sample=g, **settings) for p in prompts for g in range(size)]


class Brightness(Reward):
    def score(self, trajectories):
        return RewardOutput(reward_N=torch.stack([t.image.pixels_HWC.float().mean() / 255 for t in trajectories]))


def drawn(task, model, sampler=None, steps=None, some=None, prompts=PROMPTS, **others):
    return roll(task, model, prompts, some or keys(prompts), sampler or ode(4), steps, **others)[-1].trajectories


def test_the_settings_below_are_all_that_a_turn_has():
    assert {f.name for f in dataclasses.fields(Turn)} == {*ODD, "canvas", "images_per_text"} - {
        "guidance",
        "shared_noise",
    }


@pytest.mark.parametrize("kind", ["t2i", "editing", "reflection"])
def test_a_task_hands_every_setting_on_to_its_turn(kind):
    if kind == "t2i":
        task, others = ReasoningT2I(**SIZE, **ODD, images_per_text=2), {"images_per_text": 2}
    elif kind == "editing":
        task, others = Editing(**SIZE, **ODD), {}
    else:
        task, others = SelfReflection(ReasoningT2I(**SIZE), **ODD), {}
    settings = dict(ODD)
    canvas = Canvas(**SIZE, guidance=settings.pop("guidance"), shared_noise=settings.pop("shared_noise"))
    assert task.turn == Turn(canvas=canvas, **settings, **others)
    assert task.turns[-1] == task.turn


def test_the_turns_of_refinement_are_those_that_are_trained():
    first = ReasoningT2I(**SIZE)
    alone, mixed = SelfReflection(first), SelfReflection(first, train_first=True)
    assert list(alone.turns) == [alone.turn] and list(mixed.turns) == [first.turn, mixed.turn]


# ----------------------------------------------------------------- text


def words(trajectories):
    return [t.texts[0].ids_T.tolist() for t in trajectories]


def test_top_p_near_nothing_writes_the_likeliest_tokens(dense):
    settings = dict(**SIZE, max_tokens=5)
    greedy = words(drawn(ReasoningT2I(temperature=0.0, **settings), dense))
    assert words(drawn(ReasoningT2I(top_p=1e-6, **settings), dense)) == greedy
    assert words(drawn(ReasoningT2I(top_p=1.0, **settings), dense)) != greedy


def test_temperature_near_nothing_writes_the_likeliest_tokens(dense):
    settings = dict(**SIZE, max_tokens=5)
    greedy = words(drawn(ReasoningT2I(temperature=0.0, **settings), dense))
    assert words(drawn(ReasoningT2I(temperature=1e-4, top_p=1.0, **settings), dense)) == greedy


def test_max_tokens_ends_a_text_whose_forced_end_is_not_trained(dense):
    short, long = (drawn(ReasoningT2I(**SIZE, max_tokens=n, top_p=1.0), dense) for n in (2, 6))
    assert max(map(len, words(short))) == 2 and 2 < max(map(len, words(long))) <= 6
    end = dense.special.text_end
    for trajectory in (*short, *long):
        text = trajectory.texts[0]
        assert text.finished == (text.ids_T[-1] == end)
        assert end not in text.ids_T[:-1]
    # The same numbers are drawn: a limit cuts texts off and changes nothing before.
    assert [ids[:2] for ids in words(long)] == words(short)


def test_the_sampler_notes_the_entropy_that_replay_finds(dense):
    task, sampler = ReasoningT2I(**SIZE, max_tokens=4, temperature=0.7), sde(4, 2, (0, 2))
    samples = drawn(task, dense, sampler, range(2))
    replay = task.replay(dense, samples, sampler, context_gradient=True)
    noted = torch.cat([t.texts[0].entropy_T for t in samples])
    torch.testing.assert_close(replay.entropy_RT[replay.token_mask_RT].detach(), noted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("think", [True, False])
def test_the_system_prompt_is_that_of_thinking(dense, think):
    def pictures(prompt):
        dense.defaults = dataclasses.replace(dense.defaults, think_prompt=prompt)
        return torch.stack([t.image.final_LD for t in drawn(ReasoningT2I(**SIZE, think=think, max_tokens=1), dense)])

    assert torch.equal(pictures("think"), pictures("a and of")) != think


def in_round(task, model, round, some=None, steps=True):
    """What the task's turn makes in a round; stochastic from the first evaluation on."""
    some = some or keys()
    rollout = Rollout(
        model=model, prompts=PROMPTS, keys=some, sampler=sde(4, 2, (0, 2)), stochastic=steps, training=True
    )
    return task.turn.rollout(
        rollout, [Request(prompt=PROMPTS[n // 3], key=k, text="a") for n, k in enumerate(some)], round
    )


def test_rounds_write_and_draw_with_numbers_of_their_own(dense):
    task = ReasoningT2I(**SIZE, max_tokens=5, top_p=1.0)
    one, other = (in_round(task, dense, round) for round in (1, 2))
    assert words(one) != words(other)
    assert not any(torch.equal(a.image.latents_KLD[0], b.image.latents_KLD[0]) for a, b in zip(one, other, strict=True))


# ----------------------------------------------------------------- noise


def test_a_group_with_shared_noise_starts_from_one_noise(dense):
    settings = dict(**SIZE, think=False)
    for shared in (True, False):
        task = ReasoningT2I(shared_noise=shared, **settings)
        samples = drawn(task, dense, sde(4, 2, (0, 2)), range(2))
        starts = [t.image.latents_KLD[0] for t in samples]
        assert [torch.equal(starts[0], start) for start in starts] == [True, shared, shared, False, False, False]
        ends = [t.image.final_LD for t in samples]
        assert not any(torch.equal(ends[0], end) for end in ends[1:]), "the noise of the window is each sample's own"
        pictures = [t.image.final_LD for t in drawn(task, dense)]
        assert torch.equal(pictures[0], pictures[1]) == shared, "without a window the pictures are the same"


@pytest.mark.parametrize("other", [{"update": 3}, {"occurrence": 1}, {"seed": 2}, {"round": 1}])
def test_a_shared_noise_is_that_of_one_group_in_one_round(dense, other):
    task = ReasoningT2I(**SIZE, think=False, shared_noise=True)
    usual = in_round(task, dense, 0)[0].image.latents_KLD[0]
    round = other.get("round", 0)
    changed = keys(**{name: value for name, value in other.items() if name != "round"})
    assert not torch.equal(in_round(task, dense, round, changed)[0].image.latents_KLD[0], usual)


def test_every_step_has_noise_of_its_own(dense):
    task, sampler = ReasoningT2I(**SIZE, think=False), sde(6, 3, (0, 3))
    samples = drawn(task, dense, sampler, range(3))[:1]
    replay = task.replay(dense, samples, sampler, context_gradient=True)
    noise_KLD = (samples[0].image.next_KLD - replay.mean_RKLD[0].detach()) / replay.std_RK[0][:, None, None]
    assert not torch.allclose(noise_KLD[0], noise_KLD[1], atol=0.1)
    assert not torch.allclose(noise_KLD[1], noise_KLD[2], atol=0.1)


def test_means_are_kept_where_they_are_asked_for(dense):
    task, sampler = ReasoningT2I(**SIZE, think=False), sde(6, 3, (0, 3))
    kept = drawn(task, dense, sampler, range(3), keep_means=True)
    replay = task.replay(dense, kept, sampler, context_gradient=True)
    torch.testing.assert_close(replay.old_mean_RKLD, replay.mean_RKLD.detach(), atol=1e-5, rtol=1e-5)
    assert all(t.image.mean_KLD is None for t in drawn(task, dense, sampler, range(3)))


def test_the_clean_latents_are_those_that_the_picture_is_decoded_from(dense):
    task, sampler = ReasoningT2I(**SIZE, think=False), sde(6, 3, (0, 3))
    samples = drawn(task, dense, sampler, range(3))
    clean_RLD = task.replay(dense, samples, sampler, context_gradient=True).clean_RLD
    pixels = to_uint8(dense.decode_latents(clean_RLD, dense.latent_grid(8, 8)))
    assert torch.equal(pixels, torch.stack([t.image.pixels_HWC for t in samples]))


# ----------------------------------------------------------------- what is drawn together


class Parts(Scorer):
    """Notes of how many samples of refinement, or of anything, each share is."""

    def __init__(self, refined=False):
        super().__init__([Brightness()])
        self.sizes, self.refined = [], refined

    def __call__(self, trajectories):
        if trajectories[0].round or not self.refined:
            self.sizes.append(len(trajectories))
        return super().__call__(trajectories)


@pytest.mark.parametrize(("together", "sizes"), [(None, [6]), (1, [3, 3]), (2, [6])])
@pytest.mark.parametrize("kind", ["t2i", "editing"])
def test_prompts_per_forward_is_how_many_are_drawn_together(seeing_model, kind, together, sizes):
    settings = dict(**SIZE, max_tokens=2, prompts_per_forward=together)
    task = ReasoningT2I(**settings) if kind == "t2i" else Editing(source=grey_picture, **settings)
    parts = Parts()
    assert len(drawn(task, seeing_model, sde(4, 1, (0, 2)), range(1), score=parts)) == 6
    assert parts.sizes == sizes


@pytest.mark.parametrize(("texts", "rows"), [(None, [3, 3]), (1, [3, 3]), (2, [6])])
def test_texts_of_all_prompts_are_written_together_and_change_nothing(seeing_model, monkeypatch, texts, rows):
    sampler = sde(4, 1, (0, 2))
    alone = drawn(ReasoningT2I(**SIZE, max_tokens=4), seeing_model, sampler, range(1))
    found, write = [], type(seeing_model).sample_text

    def counted(model, context, numbers, **settings):
        found.append(context.rows)
        return write(model, context, numbers, **settings)

    monkeypatch.setattr(type(seeing_model), "sample_text", counted)
    task = ReasoningT2I(**SIZE, max_tokens=4, prompts_per_forward=1, texts_per_forward=texts)
    parts = drawn(task, seeing_model, sampler, range(1))
    assert found == rows
    assert words(parts) == words(alone)
    for ours, theirs in zip(parts, alone, strict=True):
        torch.testing.assert_close(ours.image.final_LD, theirs.image.final_LD, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("together", "sizes"), [(None, [6]), (3, [3, 3]), (4, [4, 2]), (6, [6])])
def test_requests_per_forward_is_how_many_are_drawn_together(seeing_model, together, sizes):
    parts = Parts(refined=True)
    task = SelfReflection(ReasoningT2I(**SIZE, max_tokens=2), max_tokens=2, requests_per_forward=together)
    drawn(task, seeing_model, sde(4, 1, (0, 2)), range(1), score=parts)
    assert parts.sizes == sizes


def test_rows_with_windows_of_their_own_are_drawn_as_if_alone(seeing_model):
    """Prompts drawn together take their stochastic steps at different evaluations, and are replayed apart."""
    task, sampler = ReasoningT2I(**SIZE, max_tokens=2), sde(8, 2, (0, 6), drawn="prompt")
    rollout = Rollout(
        model=seeing_model,
        prompts=PROMPTS,
        keys=keys(),
        sampler=sampler,
        training=True,
        stochastic=True,
        keep_means=True,
    )
    (together,) = task.rollout(rollout)
    windows = [t.image.step_K.tolist() for t in together.trajectories]
    assert windows[0] == windows[1] == windows[2] != windows[3] == windows[4]
    for row, prompt in enumerate(PROMPTS):
        some = dataclasses.replace(rollout, prompts=[prompt], keys=keys([prompt]))
        (alone,) = task.rollout(some)
        for ours, theirs in zip(together.trajectories[3 * row : 3 * row + 3], alone.trajectories, strict=True):
            assert torch.equal(ours.image.step_K, theirs.image.step_K)
            for name in ("latents_KLD", "next_KLD", "log_prob_K", "mean_KLD", "final_LD"):
                torch.testing.assert_close(
                    getattr(ours.image, name), getattr(theirs.image, name), atol=1e-4, rtol=1e-4, msg=name
                )
    ones = torch.ones(6)
    group = dataclasses.replace(together, advantages=Advantages(image_N=ones, text_N=ones, valid_N=ones > 0))
    batches = list(group.micro_batches(4))
    assert [len(batch) for batch in batches] == [3, 3], "a micro-batch stays within one window"
    for batch in batches:
        replay = task.replay(seeing_model, batch.trajectories, sampler, context_gradient=False)
        error = (replay.image_log_prob_RK - replay.old_image_log_prob_RK).abs().max()
        assert error < 1e-5


# ----------------------------------------------------------------- gradients


@pytest.mark.parametrize("kind", ["t2i", "editing", "reflection"])
def test_the_context_is_cut_off_for_every_task(seeing_model, kind):
    settings = dict(max_tokens=3, guidance=Guidance(text=2.0, image=1.5, interval=(0.0, 1.0), renorm="text_channel"))
    if kind == "t2i":
        task = ReasoningT2I(**SIZE, **{**settings, "guidance": Guidance(text=2.0, interval=(0.0, 1.0))})
    elif kind == "editing":
        task = Editing(**SIZE, **settings, source=grey_picture)
    else:
        task = SelfReflection(ReasoningT2I(**SIZE, max_tokens=2), **settings)
    sampler = sde(5, 2, (0, 3))
    samples = drawn(task, seeing_model, sampler, range(2), score=Scorer([Brightness()]))[:1]
    words = seeing_model.get_parameter("language_model.model.embed_tokens.weight")
    place = seeing_model.encode_text("circle")[0]
    for exact in (True, False):
        replay = task.replay(seeing_model, samples, sampler, context_gradient=exact)
        gradient = torch.autograd.grad(replay.image_log_prob_RK.sum(), words)[0][place]
        assert (gradient.abs().max() > 0) == exact
