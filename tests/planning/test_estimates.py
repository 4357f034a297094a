"""The plan's bytes against bytes that are measured, on models with the proportions of BAGEL-7B's layers."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from project.models import context
from project.models.bagel.patch_autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from project.models.base import ModelSource
from project.models.lora import LoRA
from project.models.precision import stored_dtype
from project.models.sizes import Sizes
from project.module import AlphaGRPO
from project.objectives.grpo import GRPO
from project.planning.estimates import (
    Arithmetic,
    Weights,
    Workload,
    flops,
    largest,
    layer_bytes,
    memory,
    replay_memory,
    rollout_caches,
    seconds,
)
from project.planning.live_bytes import LiveBytes
from project.planning.run_plan import plan_of, state_per_weight
from project.samplers.guidance import Guidance
from project.shapes.umm import NewEmbeddedModel
from project.tasks.editing import Editing
from project.tasks.reasoning_t2i import ReasoningT2I
from project.training.settings import UpdateSettings
from project.training.trainable import Trainable, prepare
from project.trajectory import MicroBatch, Prompt, SampleKey
from tests.helpers.sampling import roll, sde

SIZES = Sizes(layers=2, hidden=3, inner=5, query=4, key=2, heads=2, vocabulary=7, latent=1, autoencoder=11)
WORK = Workload(
    samples=12,
    prompts_per_forward=2,
    group=3,
    micro_batch=2,
    prefix=1,
    prompt=2,
    reasoning=4,
    picture=0,
    latents=6,
    evaluations=5,
    guided=2,
    trained=3,
    trained_guided=1,
    branches=1,
)
HOW = Arithmetic(stored=2, computed=2, autocast=True, adapters=True, checkpointing=True)
WEIGHTS = Weights(
    frozen=800,
    trained=400,
    largest_layer=100,
    optimizer=900,
    reference=0,
    autoencoder=11,
    decoding=1000,
    decoded_at_once=99,
)


# --------------------------------------------------------------------- by hand


def test_caches_by_hand():
    """2 layers x keys and values of 2 x 2 bytes x 6 rows x (1+2+4+6 slots, and 1+6 without the prompt)."""
    assert rollout_caches(WORK, SIZES, HOW) == 2 * 2 * 2 * 2 * 6 * (13 + 7)


def test_operations_by_hand():
    """A token costs 2 x 87 operations in a layer's matrices and 4 x 4 for each key that it looks at."""
    assert SIZES.matrix_weights == 2 * 3 * (4 + 2) + 3 * 3 * 5 == 81
    counted = flops(WORK, SIZES, HOW, decoding=100.0)
    image = 2 * (2 * (5 + 2) * 6 * 81 + 4 * 4 * 6 * (5 * 13 + 2 * 7))
    assert counted["rollout_image"] == 12 * (image + 100)
    text = 2 * (2 * 4 * 81 + 4 * 4 * 4 * (3 + 2)) + 2 * 4 * 3 * 7
    reading = 2 * (2 * 3 * 81 + 4 * 4 * 4.5)
    assert counted["rollout_text"] == 4 * reading + 12 * text
    trained = 2 * (2 * (3 + 1) * 6 * 81 + 4 * 4 * 6 * (3 * 13 + 1 * 7))
    assert counted["replay"] == 12 * (trained + text) + 6 * reading == counted["recomputation"]
    full = flops(WORK, SIZES, dataclasses.replace(HOW, adapters=False, checkpointing=False))
    matrices = 2 * 2 * ((3 + 1) * 6 + 4) * 81 + 2 * 4 * 3 * 7
    assert full["backward"] - counted["backward"] == 12 * matrices and full["recomputation"] == 0


def test_text_is_bound_by_reading_the_weights():
    counted = flops(WORK, SIZES, HOW)
    slow = seconds(WORK, SIZES, HOW, counted, speed=1e30, bandwidth=100.0)
    # Two halves of the prompts, four tokens each, read 2 layers of 81 weights (2 bytes) and a head of 21 (4 bytes).
    assert slow["rollout_text"] == pytest.approx(2 * 4 * (2 * 81 * 2 + 21 * 4) / 100)
    fast = seconds(WORK, SIZES, HOW, counted, speed=10.0, bandwidth=1e30)
    assert fast["rollout_text"] == counted["rollout_text"] / 10
    assert fast["backward"] == (counted["backward"] + counted["recomputation"]) / 10


def test_who_holds_the_weights():
    alone, ddp, fsdp = (
        memory(WORK, SIZES, HOW, WEIGHTS, ranks=ranks, sharded=sharded)
        for ranks, sharded in ((1, False), (4, False), (4, True))
    )
    assert sum(alone.always.values()) == 800 + 400 + 400 + 900 + 11
    assert sum(ddp.always.values()) == sum(alone.always.values()) + 400
    assert sum(fsdp.always.values()) == (800 + 400 + 400 + 900) / 4 + 11
    assert fsdp.phases["rollout"]["gathered weights"] == 800 + 400 and fsdp.phases["replay"]["gathered layers"] == 300
    assert fsdp.phases["replay"]["gradients of a layer"] == pytest.approx(2 * 100 * 400 / 1200)
    assert alone.peak == max(alone.peaks.values()) and alone.phases["decoding"]["pictures"] == 6000


@pytest.mark.parametrize("limit", range(1, 4))
def test_the_largest_that_fits(limit):
    best = largest(WORK, lambda work: work.micro_batch <= limit and work.micro_batch * work.prompts_per_forward <= 6)
    assert best == dataclasses.replace(WORK, micro_batch=limit, prompts_per_forward=min(4, 6 // limit))
    assert largest(WORK, lambda work: False) is None


def test_a_cut_makes_the_micro_batch_larger():
    """Of three trained steps; the largest micro-batch counts first, then the most steps."""

    def fits(work):
        return work.micro_batch * (work.steps_per_backward or work.trained) <= room

    for room, found in ((9, (3, None)), (8, (3, 2)), (4, (3, 1)), (2, (2, 1)), (0, None)):
        best = largest(WORK, fits, cut=True)
        assert (best and (best.micro_batch, best.steps_per_backward)) == found, room


def test_adapters_in_mixed_precision_keep_an_input_for_each_product_if_it_is_wide():
    shared = dataclasses.replace(HOW, stored=4, computed=4, autocast=False)
    assert layer_bytes(1, 0, SIZES, shared) == 4 * (2 * 3 + 4 + 2) + 4 * (3 + 4 + 3 + 5) + 4 * (2 * 4 + 3 * 5)
    narrow = 4 * (2 * 3 + 4 + 2) + 2 * (3 + 4 + 3 + 5) + 2 * (2 * 4 + 3 * 5) + 4 * 2 * 2
    assert layer_bytes(1, 0, SIZES, HOW) == narrow
    wide = dataclasses.replace(HOW, stored=4)
    assert layer_bytes(1, 0, SIZES, wide) == narrow + 2 * (2 * 3 + 3)


@pytest.mark.parametrize(("optimizer", "expected"), [(torch.optim.AdamW, 8), (torch.optim.SGD, 0)])
def test_what_an_optimizer_keeps_of_a_weight(optimizer, expected):
    assert state_per_weight(lambda parameters: optimizer(parameters, lr=1.0)) == pytest.approx(expected, abs=0.01)


def test_an_8_bit_optimizer_keeps_less():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    assert 2 <= state_per_weight(lambda parameters: bitsandbytes.optim.AdamW8bit(parameters)) < 2.2


# --------------------------------------------------------------------- against measured bytes


class Miniature(ModelSource):
    """Two query heads on one key head of 128, an MLP of 5.3 times the width: a layer of BAGEL-7B, 14 times narrower."""

    def __init__(self, autoencoder: str, dtype: torch.dtype, checkpointing: bool) -> None:
        self.autoencoder = autoencoder
        self.dtype = dtype
        self.checkpointing = checkpointing

    def load(self):
        source = NewEmbeddedModel(
            hidden_size=256, intermediate_size=1352, num_layers=3, num_heads=2, autoencoder=self.autoencoder
        )
        source.config = dataclasses.replace(source.config, num_kv_heads=1)
        model = source.load()
        for parameter in model.parameters():
            parameter.data = parameter.data.to(self.dtype)
        model.gradient_checkpointing = self.checkpointing
        return model

    def outline(self):
        return self.load().to("meta")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    PatchAutoencoder(PatchAutoencoderConfig()).save(folder)
    return str(folder)


PROMPT = Prompt(id="a", text="a red circle left of a blue square")
SAMPLES, TOKENS = 3, 24


def measured(
    autoencoder, dtype, checkpointing, lora, autocast, task_class=ReasoningT2I, steps=None, exact=True, **task
):
    """(plan, bytes of a rollout, bytes of a replay and its backward pass without the gradients of weights)."""
    module = AlphaGRPO(
        Miniature(autoencoder, dtype, checkpointing),
        task_class(height=128, width=128, max_tokens=TOKENS, top_p=1.0, **task),
        sde(8, 4, (0, 5)),
        GRPO(),
        trainable=Trainable(lora=LoRA(rank=2, alpha=4) if lora else None),
        num_generations=SAMPLES,
        update=UpdateSettings(micro_batch_size=SAMPLES, steps_per_backward=steps, context_gradient=exact),
    )
    model = prepare(module.policy_source.load(), module.trainable.lora)
    tokens = len(model.encode_text(PROMPT.text))
    plan = plan_of(module, "bf16-mixed" if autocast else "32-true", prompt_tokens=tokens)
    keys = [SampleKey(seed=0, update=0, prompt="a", sample=n) for n in range(SAMPLES)]

    def precision():
        return torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()

    with precision(), LiveBytes() as rollout:
        (group,) = roll(module.task, model, [PROMPT], keys, module.sampler, range(4))
    drawn = group.trajectories
    longest = max(len(t.texts[0].ids_T) for t in drawn)
    assert longest == TOKENS, "random weights end no text here, so the plan's longest text is the measured one"
    module.policy = model
    batch = MicroBatch(trajectories=drawn, image_advantage_B=torch.ones(SAMPLES), text_advantage_B=torch.ones(SAMPLES))
    with LiveBytes() as replay:
        parts = module.replays(batch)
        while True:
            with precision():
                part = next(parts, None)
                if part is None:
                    break
                loss = part.replay.text_log_prob_RT.sum() + part.replay.image_log_prob_RK.sum()
            part.complete(loss).backward()
            del part, loss
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    return plan, rollout.peak, replay.peak - gradients


def phases(plan):
    return {name: sum(parts.values()) for name, parts in plan.memory().phases.items()}


ADAPTERS = [(torch.float32, False), (torch.bfloat16, True)]
"""Number format of the base, and whether products are in mixed precision."""


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("dtype", "autocast"), ADAPTERS)
def test_adapters_need_what_is_planned(autoencoder, dtype, autocast, checkpointing):
    """Within 20%, a rollout in mixed precision within 25%: masks, casts and the like, which a wide model does not
    notice, are left out."""
    guidance = Guidance(text=2.0, interval=(0.0, 1.0))
    plan, rollout, replay = measured(autoencoder, dtype, checkpointing, True, autocast, guidance=guidance)
    planned = phases(plan)
    assert max(planned["rollout"], planned["decoding"]) == pytest.approx(rollout, rel=0.25 if autocast else 0.2)
    assert planned["replay"] == pytest.approx(replay, rel=0.2)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_training_all_weights_needs_at_most_what_is_planned(autoencoder, autocast, checkpointing):
    """The plan holds all gradients and all activations at once; they come and go in turn, so it is up to 60% more."""
    guidance = Guidance(text=2.0, interval=(0.0, 1.0))
    plan, rollout, replay = measured(autoencoder, torch.float32, checkpointing, False, autocast, guidance=guidance)
    planned = phases(plan)
    assert max(planned["rollout"], planned["decoding"]) == pytest.approx(rollout, rel=0.2)
    held = planned["replay"] + plan.weights.trained
    assert 0.95 * (replay + plan.weights.trained) <= held <= 1.6 * (replay + plan.weights.trained)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("dtype", "autocast"), ADAPTERS)
def test_cut_micro_batches_need_what_is_planned(autoencoder, dtype, autocast, exact):
    guidance = Guidance(text=2.0, interval=(0.0, 1.0))
    cut = {"steps": 1, "exact": exact, "guidance": guidance}
    plan, _, replay = measured(autoencoder, dtype, False, True, autocast, **cut)
    assert phases(plan)["replay"] == pytest.approx(replay, rel=0.2)
    whole = dataclasses.replace(plan.work, steps_per_backward=None)
    assert sum(plan.memory(whole).phases["replay"].values()) > 2 * phases(plan)["replay"]


def test_guidance_by_pictures_needs_what_is_planned(autoencoder):
    guidance = Guidance(text=2.0, image=1.5, interval=(0.0, 1.0))
    plan, rollout, replay = measured(
        autoencoder, torch.float32, True, True, False, Editing, guidance=guidance, source=_grey
    )
    assert plan.work.branches == 2 and plan.work.picture > plan.work.latents
    planned = phases(plan)
    assert max(planned["rollout"], planned["decoding"]) == pytest.approx(rollout, rel=0.2)
    assert planned["replay"] == pytest.approx(replay, rel=0.25)


def _grey(prompt):
    return np.full((128, 128, 3), 100, dtype=np.uint8)


@pytest.mark.parametrize(
    ("dtype", "lora", "autocast"),
    [(torch.float32, True, False), (torch.bfloat16, True, True), (torch.float32, False, True)],
)
def test_logits_need_what_is_planned(autoencoder, dtype, lora, autocast):
    """What 40,000 words more take of a text of 256 tokens: fp32 in every precision."""
    measured_at, planned_at = [], []
    for words in (2_000, 42_000):
        source = NewEmbeddedModel(hidden_size=32, intermediate_size=48, num_layers=1, autoencoder=autoencoder)
        source.config = dataclasses.replace(source.config, vocab_size=words)
        model = source.load()
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(stored_dtype(module, dtype))
        model = prepare(model, LoRA(rank=2) if lora else None)
        with LiveBytes() as held:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                _, said = model.text_log_probs(model.functional_context(1), [torch.full((256,), 9)])
            said.log_prob_RT.sum().backward()
        measured_at.append(held.peak - sum(p.grad.nbytes for p in model.parameters() if p.grad is not None))
        how = Arithmetic(stored=2, computed=2, autocast=autocast, adapters=lora, checkpointing=False)
        work = dataclasses.replace(WORK, micro_batch=1, reasoning=256)
        planned_at.append(replay_memory(work, model.sizes, how, 0)["logits"])
    assert planned_at[1] - planned_at[0] == pytest.approx(measured_at[1] - measured_at[0], rel=0.1)


def test_caches_are_exact(autoencoder, monkeypatch):
    """Bytes of the buffers that a rollout allocates."""
    guidance = Guidance(text=2.0, interval=(0.0, 1.0))
    sizes = []

    class Counted(context.StaticContext):
        def __init__(self, **shape):
            super().__init__(**shape)
            sizes.append((self.rows, sum(t.nbytes for t in [*self._keys, *self._values])))

    monkeypatch.setattr(context, "StaticContext", Counted)
    plan, _, _ = measured(autoencoder, torch.float32, False, True, False, guidance=guidance)
    assert rollout_caches(plan.work, plan.sizes, plan.how) == sum(size for rows, size in sizes if rows == SAMPLES)
