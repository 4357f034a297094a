"""`bench --count`: operations, weights, copies and waits, by hand and of whole updates of a tiny policy."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from project.objectives.grpo import GRPO
from project.planning.counted_update import WRITE, CountingCallback, phase_counts
from project.planning.counting import Operations, Part
from project.planning.waiting import Waits
from project.rewards.random import RandomReward
from project.samplers.guidance import Guidance
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.rectification import LearnedStop
from project.tasks.self_reflection import SelfReflection
from tests.helpers.policies import TinyBagel, tiny_bagel
from tests.helpers.sampling import sde
from tests.helpers.tiny_module import PROMPTS, make_module, plain_descent, train

PHASE = "replay"


def operations(model):
    return Operations(model.named_parameters(), lambda: PHASE)


def test_operations_equal_the_flop_counter_of_torch():
    model = tiny_bagel()
    ids = [model.encode_text("a red circle"), model.encode_text("a blue square left of")]
    with FlopCounterMode(display=False) as reference, operations(model) as counted:
        _, said = model.text_log_probs(model.functional_context(2), ids)
        said.log_prob_RT.sum().backward()
    assert reference.get_total_flops() > 0
    assert sum(part.tally.flops for part in counted.parts) == reference.get_total_flops()


def test_a_layer_by_hand():
    """Two calls work: a product, and a cast. A view is no work, and only a cast's own weights are read narrow."""
    layer = torch.nn.Linear(4, 6, bias=False)
    with torch.no_grad(), operations(layer) as counted:
        layer(torch.ones(3, 4))
        narrow = layer.weight.to(torch.bfloat16)
        torch.ones(3, 4, dtype=torch.bfloat16) @ narrow.T
    (part,) = counted.parts
    tally = part.tally
    assert part.phase == PHASE and tally.flops == 2 * 2 * 3 * 4 * 6
    assert tally.weight_bytes == 4 * 24 + 4 * 24 + 2 * 24  # the product, the cast, the product with the copy
    assert (tally.casts, tally.cast_bytes) == (1, 6 * 24)
    assert tally.calls == 5, "two ones, two products, a cast"


def test_rows_of_a_table_are_read_and_not_the_table():
    table = torch.nn.Embedding(1000, 8)
    with torch.no_grad(), operations(table) as counted:
        table(torch.tensor([1, 2]))
    assert sum(part.tally.weight_bytes for part in counted.parts) == 2 * 8 * 4


def test_waits_are_found_where_they_are():
    weight, found = torch.nn.Parameter(torch.ones(3)), []
    with torch.no_grad(), Waits(lambda place, name: found.append(name)):
        x = weight * 2
        if (x > 1).any():
            x[x > 1].sum().item()
        host = x.cpu()
        host.tolist()
        float(host.sum())
        torch.ones(2).tolist()
        made = torch.arange(3, device=weight.device)
        made.tolist()
        torch.ones(3).to(weight.device).max().item()
        x[1:2].add_(1)
        assert host.tolist() == [2, 3, 2], "what was copied to the CPU is the same memory there"
    assert found == ["__bool__", "__getitem__", "item", "cpu", "tolist", "item"]


class Outlined(TinyBagel):
    def __init__(self, checkpointing=False):
        self.checkpointing = checkpointing

    def load(self):
        model = super().load()
        model.gradient_checkpointing = self.checkpointing
        return model

    def outline(self):
        return self.load().to("meta")


def trained(count, checkpointing=False, updates=2, **settings):
    """The weights after two updates, of which the second is counted."""
    defaults = {
        "task": ReasoningT2I(height=8, width=8, max_tokens=5, guidance=Guidance(text=2.0, interval=(0.7, 1.0))),
        "sampler": sde(6, 3, (0, 4)),
        "micro_batch_size": 2,
    }
    module = make_module(policy=Outlined(checkpointing), optimizer=plain_descent, **defaults | settings)
    callback = CountingCallback("32-true", prompts=2)
    callbacks = [callback] if count else []
    train(module, updates=updates, rewards=[RandomReward(seed=2)], callbacks=callbacks, batches=[PROMPTS[:2]] * updates)
    return [p.detach().clone() for p in module.parameters()], callback.counted


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_update_is_counted_and_not_changed(checkpointing):
    without, _ = trained(False, checkpointing, updates=3)
    weights, counted = trained(True, checkpointing, updates=3)
    assert all(torch.equal(one, other) for one, other in zip(weights, without, strict=True))
    assert counted.images == 8 and 8 <= counted.text_tokens <= 40
    for name in ("rollout_text", "rollout_image", "replay", "backward"):
        # This model is so small that its heads and embeddings are seen beside the layers.
        # Where all weights are trained a backward pass is two forwards, and one more with checkpointing.
        again = 1.5 if checkpointing and name == "backward" else 1.0
        # The plan counts logits for the delimiters of a text too, which is seen in one of five tokens, and all of the
        # last layer, most of which what is read without logits leaves out: here that is one of two layers.
        least = 0.75 if name == "rollout_text" else 0.9
        assert least <= counted.phases[name].ratio / again < 1.3, name
    again = counted.phases["backward"].done.recomputed_flops
    assert (again > 0.25 * counted.phases["backward"].done.flops) == checkpointing
    assert checkpointing or again == 0
    assert counted.phases["rollout_image"].dead_branches == counted.phases["replay"].dead_branches == 0
    kinds = {(step.phase, step.kind): step for step in counted.steps}
    assert kinds["rollout_image", "denoise, 2 contexts"].flops > 1.5 * kinds["rollout_image", "denoise"].flops
    assert kinds["rollout_text", WRITE].weight_bytes > 0 and kinds["rollout_text", WRITE].tokens == 8
    assert counted.weight_bytes_per_token > 0
    places = {place.partition(":")[0] for _, _, place, _ in counted.waits}
    assert "project/models/cached_transformer.py" in places
    assert sum(counted.waits.values()) == sum(phase.done.waits for phase in counted.phases.values())


def test_ended_texts_and_short_ones_are_padding():
    _, counted = trained(True, task=ReasoningT2I(height=8, width=8, max_tokens=24, guidance=Guidance(text=1.0)))
    assert counted.text_tokens < 8 * 24, "some text ends"
    (written,) = (step for step in counted.steps if step.kind == WRITE)
    sizes = tiny_bagel().sizes
    rows_ended = counted.phases["rollout_text"].padding / (2 * sizes.layers * sizes.matrix_weights)
    # Beside the rows of the steps those of the last reading, of a text that the limit cut off.
    assert 0 < 8 * written.number - counted.text_tokens <= rows_ended <= 8 * written.number - counted.text_tokens + 7


def test_refinement_and_its_reference_are_counted():
    guidance = Guidance(text=2.0, image=1.5, interval=(0.0, 1.0), renorm="text_channel")
    first = ReasoningT2I(height=8, width=8, max_tokens=3)
    task = SelfReflection(first, candidates=2, max_tokens=3, guidance=guidance, rectification=None)
    _, counted = trained(True, task=task, objective=GRPO(kl_image=0.1))
    assert {step.kind for step in counted.steps} >= {"denoise, 3 contexts", "read a picture", "read latents"}
    assert counted.phases["reference"].ratio == pytest.approx(counted.phases["replay"].ratio)


class HalfKept(SelfReflection):
    def _finds_nothing(self, trajectory):
        return trajectory.key.sample % 2 == 0


def test_pictures_that_are_kept_are_not_needed():
    """Half as many pictures are drawn and replayed, and the plan knows it."""
    guidance = Guidance(text=2.0, image=1.5, interval=(0.0, 1.0), renorm="text_channel")
    settings = {"candidates": 1, "max_tokens": 3, "guidance": guidance, "rectification": None}
    found = []
    for stop in (None, LearnedStop(right_from=0.0, bonus=0.1)):
        first = ReasoningT2I(height=8, width=8, max_tokens=3)
        found.append(trained(True, task=HalfKept(first, learned_stop=stop, **settings))[1])
    drawn, kept = found
    assert kept.images == drawn.images / 2
    for name in ("rollout_image", "replay", "backward"):
        assert kept.phases[name].needed < 0.8 * drawn.phases[name].needed, name
    assert kept.phases["rollout_image"].ratio == pytest.approx(drawn.phases["rollout_image"].ratio, rel=0.15)


def test_branches_that_guide_nothing_are_dead():
    model = tiny_bagel()
    parts = [Part(phase="rollout_image", kind="denoise, 2 contexts", latents=10)]
    counts = phase_counts(parts, model, {"rollout_image latents": 6.0})
    token = 2 * model.sizes.layers * model.sizes.matrix_weights
    assert counts["rollout_image"].dead_branches == 4 * token
