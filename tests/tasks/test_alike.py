"""What samples have in common is computed once, and nothing else changes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from project.models.alike import Alike, AlikeStates
from project.models.context import Contexts
from project.samplers.guidance import Guidance
from project.tasks.editing import Editing
from project.tasks.reasoning_t2i import ReasoningT2I
from project.trajectory import Prompt
from tests.helpers.backbones import grey_picture
from tests.helpers.policies import tiny_bagel
from tests.helpers.sampling import roll, sde
from tests.tasks.test_turn import keys

SIZE = dict(height=8, width=8)
GUIDANCE = Guidance(text=2.0, interval=(0.0, 1.0))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny_bagel()


@pytest.fixture
def rows(model):
    """How many rows each forward fed."""
    fed: list[int] = []
    hook = model.register_forward_hook(lambda module, arguments, output: fed.append(len(arguments[0].ids_RT)))
    yield fed
    hook.remove()


def test_rows_are_alike_by_their_labels():
    alike = Alike.by(["a", ("b", 1), "a", "c", ("b", 1)], CPU)
    assert alike is not None
    assert alike.first_M.tolist() == [0, 1, 3] and alike.kind_R.tolist() == [0, 1, 0, 2, 1]
    assert Alike.by("abc", CPU) is None
    assert AlikeStates.by("abc", "cab", CPU) is None
    states = AlikeStates.by("abc", "aab", CPU)
    assert states is not None and states.main is None and states.free is not None


@pytest.mark.parametrize("kind", ["static", "functional"])
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.0, 0.8)], ids=["all guided", "first not guided"])
def test_a_first_state_that_rows_share_is_fed_once(model, rows, kind, interval):
    """Rows 0, 1 and 3 have one first state; of these 0 and 3 read one text."""
    texts, steps = ["a red circle", "a blue circle", "a red circle", "a red circle"], 1 if kind == "static" else 3
    grid = model.latent_grid(8, 8)
    x = torch.randn(4, steps, grid[0] * grid[1], model.latent_size, generator=torch.Generator().manual_seed(0))
    x[[1, 3], 0] = x[0, 0].clone()
    sigma = torch.linspace(0.9, 0.3, steps)
    with torch.no_grad():
        empty = model.static_context(4, 60) if kind == "static" else model.functional_context(4)
        free = model.append_text(empty, [model.encode_text("think")] * 4)
        main = model.append_text(free.select(torch.arange(4), room=40), [model.encode_text(text) for text in texts])
    contexts = Contexts(main=main, text_free=free.select(torch.arange(4), room=40))
    alike = AlikeStates.by([0, 1, 2, 0], [0, 0, 2, 0], CPU)

    def velocity(**given):
        rows.clear()
        return model.velocity(x, sigma, contexts, dataclasses.replace(GUIDANCE, interval=interval), grid, **given)

    whole, fed = velocity(), sum(rows)
    once = velocity(alike=alike)
    torch.testing.assert_close(once, whole, atol=1e-6, rtol=1e-5)
    assert fed - sum(rows) == (1 + 2 if interval[1] == 1 else 1)


def run(model, task, sampler, prompts, context_gradient):
    model.zero_grad()
    group = roll(task, model, prompts, keys(prompts, 4), sampler, sampler.windows[0])[-1]
    replay = task.replay(model, group.trajectories, sampler, context_gradient=context_gradient)
    weight_R = torch.linspace(-1, 2, len(group))[:, None]  # every sample has its own share of the gradient
    loss = (replay.image_log_prob_RK * weight_R).sum() + (
        replay.text_log_prob_RT * weight_R[replay.text_sample_R]
    ).sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return group.trajectories, replay, gradients


@pytest.mark.parametrize("context_gradient", [True, False], ids=["context gradient", "context cut"])
@pytest.mark.parametrize("window", [(0, 2), (1, 3)], ids=["first", "second"])
@pytest.mark.parametrize("kind", ["thinking", "pictures alone", "editing", "own noise"])
def test_an_update_is_the_same_with_and_without(model, rows, monkeypatch, kind, window, context_gradient):
    prompts = [Prompt(id="a", text="a red circle"), Prompt(id="b", text="two green square")]
    settings = dict(**SIZE, guidance=GUIDANCE, shared_noise=kind != "own noise")
    if kind == "editing":
        settings["guidance"] = Guidance(text=2.0, image=1.5, interval=(0.0, 1.0))
        task = Editing(**settings, max_tokens=3, source=grey_picture)
    else:
        task = ReasoningT2I(**settings, max_tokens=3, think=kind != "pictures alone", images_per_text=2)
    sampler = sde(5, 2, window)
    drawn, replay, gradients = run(model, task, sampler, prompts, context_gradient)
    shared, counted = list(rows), sum(rows)
    rows.clear()
    monkeypatch.setattr(Alike, "by", lambda labels, device: None)
    plain, expected, exact = run(model, task, sampler, prompts, context_gradient)
    assert counted < sum(rows) and len(shared) == len(rows), "as many forwards, of fewer rows"
    for mine, theirs in zip(drawn, plain, strict=True):
        assert [t.ids_T.tolist() for t in mine.texts] == [t.ids_T.tolist() for t in theirs.texts]
        for name in ("latents_KLD", "next_KLD", "final_LD", "log_prob_K"):
            torch.testing.assert_close(
                getattr(mine.image, name), getattr(theirs.image, name), atol=2e-5, rtol=1e-5, msg=name
            )
    for name in ("text_log_prob_RT", "entropy_RT", "image_log_prob_RK", "mean_RKLD", "velocity_RKLD"):
        torch.testing.assert_close(getattr(replay, name), getattr(expected, name), atol=2e-5, rtol=1e-5, msg=name)
    torch.testing.assert_close(replay.image_log_prob_RK, replay.old_image_log_prob_RK, atol=1e-6, rtol=1e-6)
    assert gradients.keys() == exact.keys()
    for name, gradient in exact.items():
        torch.testing.assert_close(gradients[name], gradient, atol=2e-5 * float(gradient.abs().max() + 1), rtol=1e-4)


def test_noise_of_their_own_is_never_shared(model, rows):
    prompts = [Prompt(id="a", text="a red circle")]
    roll(ReasoningT2I(**SIZE, guidance=GUIDANCE, think=False), model, prompts, keys(prompts, 4), sde(4), range(0, 1))
    assert rows[-3:] == [8, 8, 8]
