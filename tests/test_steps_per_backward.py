"""`update.steps_per_backward`: a micro-batch cut over its trained steps gives the same update as a whole one."""

from __future__ import annotations

import re

import pytest
import torch

from project.callbacks.on_policy_gate import OnPolicyGate
from project.models.lora import LoRA
from project.objectives.grpo import GRPO
from project.planning.live_bytes import LiveBytes
from project.rewards.random import RandomReward
from project.samplers.guidance import Guidance
from project.tasks.base import Task
from project.tasks.editing import Editing
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.self_reflection import SelfReflection
from tests.helpers.policies import TinyBagel
from tests.helpers.sampling import sde
from tests.helpers.several_ranks import MEASURED
from tests.helpers.tiny_module import PROMPTS, make_module, plain_descent, train
from tests.helpers.toys import WholeSamples

GUIDED = Guidance(text=2.0, interval=(0.7, 1.0))
BY_PICTURE = Guidance(text=2.0, image=1.5, interval=(0.0, 1.0), renorm="text_channel")
SIZE = {"height": 8, "width": 8}
ROUNDING = re.compile("ratio_error|on_policy|clip_fraction").search
"""Figures that show rounding errors themselves."""


def grey(prompt):
    return (torch.arange(8 * 8 * 3).reshape(8, 8, 3) % (50 + len(prompt.text))).to(torch.uint8).numpy()


TASKS = {
    "rt2i": lambda: ReasoningT2I(**SIZE, max_tokens=4, top_p=1.0, guidance=GUIDED),
    "pictures alone": lambda: ReasoningT2I(**SIZE, think=False, guidance=GUIDED),
    "editing": lambda: Editing(**SIZE, max_tokens=3, guidance=BY_PICTURE, source=grey),
    "srr": lambda: SelfReflection(
        ReasoningT2I(**SIZE, max_tokens=3), candidates=2, max_tokens=3, guidance=BY_PICTURE, rectification=None
    ),
    "mixed": lambda: SelfReflection(
        ReasoningT2I(**SIZE, max_tokens=3, guidance=GUIDED), train_first=True, max_tokens=3, credit="own",
        guidance=BY_PICTURE, rectification=None,
    ),
}  # fmt: skip


def updated(steps, task, **settings):
    """The weights after an update, and what it logged."""
    defaults = {"policy": TinyBagel(), "sampler": sde(6, 3, (0, 4)), "optimizer": plain_descent, "micro_batch_size": 3}
    module = make_module(**defaults | settings, task=TASKS[task](), steps_per_backward=steps)
    trainer = train(
        module, updates=1, rewards=[RandomReward(seed=2)], callbacks=[OnPolicyGate()], batches=[PROMPTS[:2]]
    )
    logged = {name: float(v) for name, v in trainer.callback_metrics.items() if not MEASURED(name)}
    return dict(module.named_parameters()), logged


def assert_equal(whole, cut):
    (weights, logged), (cut_weights, cut_logged) = whole, cut
    for name, weight in weights.items():
        torch.testing.assert_close(cut_weights[name], weight, atol=1e-6, rtol=1e-5, msg=name)
    assert cut_logged.keys() == logged.keys()
    for name, value in logged.items():
        close = pytest.approx(value, abs=1e-5) if ROUNDING(name) else pytest.approx(value, rel=1e-5, abs=1e-6)
        assert cut_logged[name] == close, name


@pytest.mark.parametrize("exact", [True, False], ids=["context gradient", "context cut"])
@pytest.mark.parametrize("task", TASKS)
def test_a_cut_micro_batch_gives_the_same_update(task, exact):
    """Guidance acts on some of the three trained steps only; two of three, then one, are replayed together."""
    whole = updated(None, task, context_gradient=exact)
    assert whole[1]["grad_norm"] > 1e-3
    assert_equal(whole, updated(2, task, context_gradient=exact))


@pytest.mark.parametrize(
    "settings",
    [
        {"per_rollout": 2},
        {"lora": LoRA(rank=2, alpha=4), "reference": "start"},
        {"lora": LoRA(rank=2, alpha=4), "context_gradient": False, "per_rollout": 2},
    ],
    ids=["copy", "start", "base"],
)
def test_with_a_reference(settings):
    """Where an update has two optimizer steps, the policy is no longer its reference in the second."""
    settings |= {"objective": GRPO(kl_image=0.5, kl_text=0.5)}
    whole = updated(None, "rt2i", **settings)
    assert settings.get("per_rollout", 1) == 1 or whole[1]["kl/image"] > 0
    assert_equal(whole, updated(1, "rt2i", **settings))


def test_texts_that_train_nothing_have_no_backward():
    freeze = [r"^(?!.*_moe_gen|llm2vae)"]
    settings = {"freeze": freeze, "context_gradient": False}
    assert_equal(updated(None, "rt2i", **settings), updated(1, "rt2i", **settings))


def test_the_gradient_of_the_pictures_reaches_the_context():
    """Otherwise the test of equality would prove nothing."""
    exact, cut = (updated(1, "pictures alone", context_gradient=exact)[0] for exact in (True, False))
    name = "policy.language_model.model.layers.0.mlp.down_proj.weight"
    assert not torch.allclose(exact[name], cut[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("exact", [True, False], ids=["context gradient", "context cut"])
def test_fewer_steps_need_less_memory(exact):
    held_by: dict[int | None, list[int]] = {None: [], 1: []}
    for steps, held_at_once in held_by.items():
        module = make_module(
            policy=TinyBagel(),
            task=TASKS["rt2i"](),
            sampler=sde(10, 8, (0, 8)),
            micro_batch_size=8,
            num_generations=8,
            context_gradient=exact,
            steps_per_backward=steps,
        )
        whole = module.replays
        with LiveBytes() as memory:

            def replays(batch, first, *, whole=whole, memory=memory, held_at_once=held_at_once):
                before = memory.now
                for part in whole(batch, first):
                    held_at_once.append(memory.now - before)
                    yield part

            module.replays = replays
            train(module, updates=1, batches=[PROMPTS[:1]])
    assert len(held_by[None]) == 1 and len(held_by[1]) == 9
    assert max(held_by[1]) < max(held_by[None]) / 2, held_by


class NoParts(ReasoningT2I):
    replay_parts = Task.replay_parts


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps_per_backward": 0}, "steps_per_backward=0: give at least 1, or null"),
        ({"steps_per_backward": 1, "objective": WholeSamples()}, "WholeSamples needs whole samples: set it to null"),
        ({"steps_per_backward": 1, "task": NoParts(**SIZE)}, "NoParts replays whole samples only"),
    ],
)
def test_what_cannot_be_cut_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        make_module(**settings)
