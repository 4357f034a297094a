"""Contracts 2 and 3: replay evaluates the transition that rollout took, for any micro-batch, with exact gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from project.models.packing import LatentBlock, TextBlock, pack
from project.models.text import tempered
from project.samplers.guidance import Guidance, guide
from project.tasks.reasoning_t2i import ReasoningT2I
from project.trajectory import Prompt, SampleKey
from tests.helpers.sampling import at, roll, sde

PROMPTS = [Prompt(id="a", text="a red circle"), Prompt(id="b", text="a green square left of a red circle")]
GROUP = 3
SETTINGS = dict(
    height=8, width=8, max_tokens=6, temperature=0.9, top_p=0.9, guidance=Guidance(text=2.5, interval=(0.6, 0.95))
)
SDE = dict(size=4, range=(1, 6))


def make_task(**changes):
    return ReasoningT2I(**{**SETTINGS, **changes})


def keys():
    return [SampleKey(seed=1, update=2, prompt=p.id, sample=g) for p in PROMPTS for g in range(GROUP)]


@pytest.fixture
def sampler():
    return sde(8, **SDE)


def drawn(task, model, sampler):
    (group,) = roll(task, model, PROMPTS, keys(), sampler, sampler.steps(at(1, 2)))
    return group.trajectories


@pytest.fixture
def trajectories(model, sampler):
    return drawn(make_task(), model, sampler)


def errors(replay):
    """Largest |ratio - 1| of text and image."""
    text = (replay.text_log_prob_RT - replay.old_text_log_prob_RT)[replay.token_mask_RT]
    image = replay.image_log_prob_RK - replay.old_image_log_prob_RK
    return text.exp().sub(1).abs().max().item(), image.exp().sub(1).abs().max().item()


def test_ratio_is_one_before_the_first_update(model, sampler, trajectories):
    text, image = errors(make_task().replay(model, trajectories, sampler, context_gradient=True))
    assert text <= 1e-5 and image <= 1e-6
    assert {t.image.step_K.tolist()[0] for t in trajectories} == {sampler.steps(at(1, 2)).start}
    assert len({t.texts[0].text for t in trajectories}) > 1, "the samples of a group must differ"


def test_pictures_of_one_text(model, sampler):
    """Samples 0 and 1 share a text, 2 has its own; the picture is each sample's own, whoever shares its text."""
    shared, single = (drawn(make_task(images_per_text=n), model, sampler) for n in (2, 1))
    for start in (0, GROUP):
        one, other, third = shared[start : start + GROUP]
        assert one.texts[0] is other.texts[0]
        for now, alone in ((one, single[start]), (third, single[start + 2])):
            assert now.texts[0].ids_T.tolist() == alone.texts[0].ids_T.tolist()
        assert not torch.equal(one.image.final_LD, other.image.final_LD)
        torch.testing.assert_close(one.image.final_LD, single[start].image.final_LD, atol=1e-4, rtol=1e-4)
    text, image = errors(make_task().replay(model, shared, sampler, context_gradient=True))
    assert text <= 1e-5 and image <= 1e-6


def test_the_context_of_a_picture_is_its_prompt_and_text(model, sampler):
    (group,) = roll(make_task(images_per_text=2), model, PROMPTS, keys(), sampler, sampler.steps(at(1, 2)))
    same = group.context_N[:, None] == group.context_N
    texts = [(t.prompt.id, tuple(t.texts[0].ids_T.tolist())) for t in group.trajectories]
    assert same.tolist() == [[a == b for b in texts] for a in texts]
    assert same[0, 1] and same[3, 4] and not same[0, 3]


def scaled(guidance):
    return dataclasses.replace(guidance, text=guidance.text + 0.1)


@pytest.mark.parametrize(
    "mutation", ["schedule by one step", "guidance scale", "renorm", "temperature", "dtype", "one token"]
)
def test_every_mutation_of_the_rollout_is_noticed(model, sampler, trajectories, mutation):
    task, replayed = make_task(), trajectories
    if mutation == "schedule by one step":
        sampler = sde(9, **SDE)
    elif mutation == "guidance scale":
        task = make_task(guidance=scaled(SETTINGS["guidance"]))
    elif mutation == "renorm":
        task = make_task(guidance=dataclasses.replace(SETTINGS["guidance"], renorm="channel"))
    elif mutation == "temperature":
        task = make_task(temperature=1.0)
    elif mutation == "dtype":
        model = model.to(torch.bfloat16)
    else:
        replayed = [change_one_token(t) for t in trajectories]
    text, image = errors(task.replay(model, replayed, sampler, context_gradient=True))
    assert text > 1e-5 or image > 1e-6


def test_log_probs_of_the_truncated_softmax_are_noticed(model, sampler, monkeypatch):
    """The sixth mutation: a rollout that records log-probs of the top-p truncated softmax, not of the full one."""
    task = make_task(top_p=0.5)

    def rollout():
        return drawn(task, model, sampler)

    text, _ = errors(task.replay(model, rollout(), sampler, context_gradient=True))
    assert text <= 1e-5, "top-p must not change which log-probabilities are recorded"

    def truncated(logits, temperature):
        logits = tempered(logits, temperature)
        probability, order = logits.softmax(-1).sort(descending=True)
        outside = probability.cumsum(-1) - probability >= 0.5
        return logits.masked_fill(outside.gather(-1, order.argsort(-1)), -torch.inf)

    with monkeypatch.context() as patch:
        patch.setattr("project.models.writing.tempered", truncated)
        mutated = rollout()
    text, _ = errors(task.replay(model, mutated, sampler, context_gradient=True))
    assert text > 0.1


def change_one_token(trajectory):
    text = trajectory.texts[0]
    ids = text.ids_T.clone()
    ids[0] = 5 if ids[0] != 5 else 6
    return dataclasses.replace(trajectory, segments=(dataclasses.replace(text, ids_T=ids), trajectory.image))


def objective_gradients(model, task, sampler, trajectories, size, context_gradient=True):
    """Gradients of a fixed weighted sum of all log-probabilities, accumulated over micro-batches of `size`."""
    model.zero_grad()
    weights = torch.linspace(-1, 1, len(trajectories))
    for start in range(0, len(trajectories), size):
        part = slice(start, start + size)
        replay = task.replay(model, trajectories[part], sampler, context_gradient=context_gradient)
        text = (replay.text_log_prob_RT * replay.token_mask_RT).sum(1)
        (weights[part] * (text + 5 * replay.image_log_prob_RK.sum(1))).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours, reference, tolerance):
    for name, gradient in reference.items():
        scale = gradient.abs().max().clamp_min(1e-3)
        assert (ours[name] - gradient).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("size", [1, 2, 4])
def test_gradients_do_not_depend_on_the_micro_batch(model, sampler, trajectories, size):
    whole = objective_gradients(model, make_task(), sampler, trajectories, len(trajectories))
    assert_same_gradients(objective_gradients(model, make_task(), sampler, trajectories, size), whole, 2e-5)


def slow_gradients(model, task, sampler, trajectories):
    """The same objective, every log-probability from its own forward over the raw token sequence, nothing cached."""
    model.zero_grad()
    weights = torch.linspace(-1, 1, len(trajectories))
    total = torch.zeros(())
    for weight, t in zip(weights, trajectories, strict=True):
        before = [TextBlock(ids_T=model.encode_text(x)) for x in (model.defaults.think_prompt, t.prompt.text)]
        ids = t.texts[0].ids_T
        written = TextBlock(ids_T=ids[:-1] if t.texts[0].finished else ids, loss=True)
        packed = pack(model, [[*before, written]])
        log_probs = torch.log_softmax(model(packed.query, []).logits.float() / task.turn.temperature, -1)
        # Of a text that was cut off the end token was not drawn.
        total = total + weight * log_probs.gather(1, packed.target_W[:, None])[: len(ids)].sum()
        read, system = [*before, written], before[:1]
        for k in range(len(t.image.step_K)):
            v = guided_velocity(model, task, sampler, t.image, k, read, system)
            step = t.image.step_K[k : k + 1]
            transition = sampler.log_prob(t.image.latents_KLD[k : k + 1], v, step, t.image.next_KLD[k : k + 1])
            total = total + 5 * weight * transition.log_prob_R.sum()
    total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def guided_velocity(model, task, sampler, image, k, read, system):
    sigma = sampler.sigma_N[image.step_K[k]]
    branches = [
        whole_sequence_velocity(model, context, image.latents_KLD[k], sigma, task.turn.canvas)
        for context in (read, system)
    ]
    guidance = task.turn.canvas.guidance
    return guide(*branches, None, guidance) if guidance.active(sigma.item()) else branches[0]


def whole_sequence_velocity(model, blocks, latents, sigma, canvas):
    """One forward over everything read and the denoising query together, with an explicit mask."""
    grid = model.latent_grid(canvas.height, canvas.width)
    noised = LatentBlock(latents_LD=latents, grid=grid, sigma=sigma.item(), noise_LD=latents)
    return model(pack(model, [[*blocks, noised]]).query, []).velocity_RLD


def test_gradients_equal_a_slow_reference_without_caches(model, sampler, trajectories):
    slow = slow_gradients(model, make_task(), sampler, trajectories)
    fast = objective_gradients(model, make_task(), sampler, trajectories, len(trajectories))
    assert slow.keys() == fast.keys()
    assert_same_gradients(fast, slow, 2e-5)


def test_detached_context_cuts_the_image_gradient_only(model, sampler, trajectories):
    exact = make_task().replay(model, trajectories, sampler, context_gradient=True)
    cut = make_task().replay(model, trajectories, sampler, context_gradient=False)
    torch.testing.assert_close(exact.image_log_prob_RK, cut.image_log_prob_RK)
    words = model.get_parameter(
        "words.weight" if hasattr(model, "words") else "language_model.model.embed_tokens.weight"
    )
    prompt_word = model.encode_text("circle")[0]
    gradients = [
        torch.autograd.grad(r.image_log_prob_RK.sum(), words, retain_graph=True)[0][prompt_word].abs().max().item()
        for r in (exact, cut)
    ]
    assert gradients[0] > 1e-6 and gradients[1] == 0


def test_a_sample_does_not_depend_on_its_batch(model, sampler, trajectories):
    """Keyed randomness: one prompt drawn alone gives the samples it gave in company."""
    (alone,) = roll(make_task(), model, PROMPTS[1:], keys()[GROUP:], sampler, sampler.steps(at(1, 2)))
    for ours, theirs in zip(alone.trajectories, trajectories[GROUP:], strict=True):
        assert ours.texts[0].ids_T.tolist() == theirs.texts[0].ids_T.tolist()
        torch.testing.assert_close(ours.image.final_LD, theirs.image.final_LD, atol=1e-4, rtol=1e-4)


def test_without_thinking_there_is_only_an_image(model, sampler):
    task = make_task(think=False)
    trajectories = drawn(task, model, sampler)
    assert all(len(t.segments) == 1 for t in trajectories)
    replay = task.replay(model, trajectories, sampler, context_gradient=True)
    assert replay.text_log_prob_RT.numel() == 0
    assert (replay.image_log_prob_RK - replay.old_image_log_prob_RK).exp().sub(1).abs().max() <= 1e-6
