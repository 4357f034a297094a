"""What the settings of `AlphaGRPO` promise, one by one."""

from __future__ import annotations

import dataclasses
import types

import pytest
import torch
from lightning import Callback, Trainer

from project.benchmarks.base import Benchmark
from project.core.ranks import Ranks
from project.datamodule import PromptDataModule
from project.models.lora import LoRA, add_lora, save_adapter
from project.objectives.grpo import GRPO
from project.rewards.random import RandomReward
from project.samplers.guidance import Guidance
from project.samplers.schedule import Schedule
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.self_reflection import SelfReflection
from project.training.advantages import advantages
from project.training.evaluation import Evaluation
from project.training.settings import AdvantageSettings
from project.training.trainable import prepare
from project.trajectory import Group, Prompt, Scores, sample_keys
from tests.helpers import toys
from tests.helpers.backbones import NewDenseModel
from tests.helpers.policies import TinyBagel
from tests.helpers.sampling import at, ode, roll, sde
from tests.helpers.tiny_module import PROMPTS, make_module, plain_descent, train

SIZE = dict(height=8, width=8, max_tokens=4, guidance=Guidance(text=2.0, interval=(0.0, 1.0)))


def configured(**changes):
    module = make_module(**changes)
    module.configure_model()
    return module


def trained(updates=1, rewards=None, callbacks=(), **changes):
    module = make_module(**{"optimizer": plain_descent, **changes})
    return module, train(module, updates=updates, rewards=rewards, callbacks=callbacks)


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def assert_same_weights(one, other):
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=1e-6, rtol=1e-5, msg=name)


# ----------------------------------------------------------------- keys and draws


def test_keys_name_run_update_prompt_occurrence_and_sample():
    prompts = [Prompt(id="a", text=""), Prompt(id="b", text=""), Prompt(id="a", text="")]
    keys = sample_keys(prompts, 2, seed=7, update=5)
    assert {(k.seed, k.update) for k in keys} == {(7, 5)}
    assert [(k.prompt, k.occurrence, k.sample) for k in keys] == [
        ("a", 0, 0), ("a", 0, 1), ("b", 0, 0), ("b", 0, 1), ("a", 1, 0), ("a", 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("seed", "update"), [(3, 0), (3, 1), (0, 1), (5, 4)])
def test_a_rollout_takes_the_window_of_its_seed_and_update(seed, update):
    module = configured(seed=seed, sampler=sde(9, 2, (0, 8)), num_generations=3)
    module.updates = update
    (group,) = module.rollout(PROMPTS)
    assert len(group) == 3 * len(PROMPTS) and group.size == 3
    assert {t.key.update for t in group.trajectories} == {update}
    assert {tuple(t.image.step_K.tolist()) for t in group.trajectories} == {
        tuple(module.sampler.steps(at(seed, update)))
    }


# ----------------------------------------------------------------- evaluation


def test_an_evaluation_does_not_depend_on_the_run_or_its_update():
    shown = []
    for seed, update in ((3, 0), (3, 5), (8, 5)):
        module = configured(seed=seed)
        module.updates = update
        output = module.validation_step(PROMPTS, 0)
        shown.append([(t.texts[0].text, t.image.final_LD.tolist()) for t in output["group"].trajectories])
    assert shown[0] == shown[1] == shown[2]
    alone = configured().validation_step(PROMPTS[1:2], 0)["group"].trajectories[0]
    assert alone.texts[0].text == shown[0][1][0], "nor on what else is evaluated"


def test_an_evaluation_follows_the_ode_of_its_own_schedule():
    task = ReasoningT2I(temperature=0.0, **SIZE)
    module = configured(evaluation=Evaluation(task=task, schedule=Schedule(4)))
    (group,) = module.validation_step(PROMPTS, 0)["groups"]
    keys = sample_keys(PROMPTS, 1, seed=0, update=-1)
    (expected,) = roll(task, module.model, PROMPTS, keys, ode(4), None)
    for ours, theirs in zip(group.trajectories, expected.trajectories, strict=True):
        assert not len(ours.image.step_K)
        assert torch.equal(ours.image.final_LD, theirs.image.final_LD)
    assert not group.pending, "nothing is scored that does not decide what is drawn"


def test_every_benchmark_has_its_own_task():
    one, two = (ReasoningT2I(temperature=0.0, **{**SIZE, "max_tokens": n}) for n in (1, 2))
    evaluation = Evaluation(task={"one": one, "two": two}, schedule=Schedule(4))
    prompt = Prompt(id="a", text="a", benchmark="two", columns={"benchmark": "one"})
    assert evaluation.task_of(prompt) is two, "a column of the file says nothing"
    with pytest.raises(ValueError, match="no benchmark in particular"):
        evaluation.task_of(dataclasses.replace(prompt, benchmark=None))
    assert Evaluation(task=one, schedule=Schedule(4)).task_of(prompt) is one


def test_an_evaluation_that_chooses_by_rewards_asks_them():
    gated = SelfReflection(ReasoningT2I(temperature=0.0, **SIZE), temperature=0.0, max_tokens=3, gate=2.0)
    module = configured(
        policy=TinyBagel(), evaluation=Evaluation(task=gated, schedule=Schedule(4)), task=ReasoningT2I(**SIZE)
    )
    module._trainer = types.SimpleNamespace(callbacks=[RandomReward(seed=1)])
    first, refined = module.validation_step(PROMPTS[:1], 0)["groups"]
    assert first.pending and not refined.trajectories[0].stopped


class Waits(RandomReward):
    longest_wait = 3.0


class Waiting(Benchmark):
    """Whose own reward may be waited for."""

    def __init__(self):
        super().__init__(toys.MeanOf(), Waits())

    def measure(self, trajectories, rewards):
        return []


def test_ranks_wait_as_long_as_all_judges_of_the_run_may_be_away(monkeypatch):
    waits = []
    monkeypatch.setattr("project.training.evaluated.lengthen_timeout", lambda strategy, s: waits.append((strategy, s)))
    trainer = train(make_module(), updates=1, rewards=[Waits(), RandomReward()], callbacks=[Waiting()])
    assert waits == [(trainer.strategy, 6.0)]


def test_samples_that_cannot_be_dealt_to_the_ranks_are_refused_before_anything_is_loaded(monkeypatch):
    module = make_module(num_generations=3)
    monkeypatch.setattr(type(module), "ranks", Ranks(rank=0, size=7))
    data = PromptDataModule(train="prompts.txt", prompts_per_update=2)
    data.setup = lambda stage: None
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, barebones=True)
    with pytest.raises(ValueError, match=r"2 x 3 samples.*7 ranks: raise data.init_args.prompts_per_update, or take"):
        trainer.fit(module, datamodule=data)
    assert module.policy is None


class Named(Benchmark):
    """Keeps the prompts that it measured."""

    name = "named"

    def __init__(self):
        super().__init__(toys.MeanOf())

    def measure(self, trajectories, rewards):
        return [{"length": 1} for _ in trajectories]


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        ({}, 1),
        ({"benchmark": "named"}, 1),
        ({"benchmark": "other"}, 0),
        ({"columns": {"benchmark": "other", "padding": True}}, 1),
        ({"padding": True}, 0),
    ],
)
def test_a_benchmark_measures_what_is_for_all_or_for_it(changes, measured):
    prompt = Prompt(id="a", text="a", **changes)
    benchmark, trainer = Named(), types.SimpleNamespace(callbacks=[])
    benchmark.on_validation_batch_end(trainer, None, {"group": toys.group([prompt], size=1)}, [prompt], 0)
    assert len(benchmark._outcomes[None]) == measured


# ----------------------------------------------------------------- advantages

REWARDS = torch.tensor([0.0, 1.0, 2.0, 40.0, 0.5, 0.5, 0.5, 0.6])


def scored_group():
    """Two groups of four; samples 0 and 1 of a group share a text, and so do 2 and 3; sample 7 is badly formed."""
    group = toys.group(PROMPTS[:2], size=4)
    samples = []
    for n, sample in enumerate(group.trajectories):
        text = dataclasses.replace(sample.texts[0], ids_T=torch.tensor([n % 4 // 2]))
        samples.append(dataclasses.replace(sample, segments=(text, sample.image)))
    return Group(
        trajectories=tuple(samples),
        size=4,
        scores=Scores(
            reward_N=REWARDS, text_reward_N=torch.linspace(0, 1, 8), well_formed_N=torch.arange(8) != 7, metrics={}
        ),
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, {}),
        ({"scale_rewards": "group"}, {"scale": "group"}),
        ({"scale_rewards": "none"}, {"scale": "none"}),
        ({"clip": 0.1}, {"clip": 0.1}),
        ({"scale_floor": 3.0}, {"eps": 3.0}),
        ({"image_baseline": "context"}, {"image_context_N": torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])}),
    ],
)
def test_samples_are_compared_as_the_settings_say(given, meant):
    module, group = make_module(**given), scored_group()
    module.log_dict = lambda *args, **settings: None
    module._trainer = types.SimpleNamespace(world_size=1, global_rank=0)
    ours = module.advantages(group).advantages
    usual = {"scale": "global", "clip": 5.0, "eps": 1e-4, "image_mask_N": group.scores.well_formed_N}
    theirs = advantages(REWARDS, group.scores.text_reward_N, 4, **{**usual, **meant})
    torch.testing.assert_close(ours.image_N, theirs.image_N)
    torch.testing.assert_close(ours.text_N, theirs.text_N)
    assert ours.image_N[7] == 0 and ours.text_N[7] != 0
    if given:
        assert not torch.equal(ours.image_N, module_default(group))


class Scaled(RandomReward):
    """A random reward on a scale of its own; another one each."""

    def __init__(self, seed, scale):
        super().__init__(seed=seed)
        self.scale = scale

    def score(self, trajectories):
        output = super().score(trajectories)
        return dataclasses.replace(output, reward_N=self.scale * output.reward_N)


def test_normalised_rewards_are_compared_and_given_ones_are_logged():
    """The scale of one of two rewards changes the weights of a sum, and none of what is normalised."""
    found, logged = {}, {}
    for combine, scale in (("sum", 1.0), ("sum", 100.0), ("normalised", 1.0), ("normalised", 100.0)):
        rewards = [Scaled(1, scale), Scaled(2, 1.0)]
        module, trainer = trained(rewards=rewards, combine=combine, scale_floor=1e-9)
        found[combine, scale] = weights(module)
        logged[combine, scale] = trainer.callback_metrics["reward/mean"].item()
    assert_same_weights(found["normalised", 1.0], found["normalised", 100.0])
    with pytest.raises(AssertionError):
        assert_same_weights(found["sum", 1.0], found["sum", 100.0])
    for scale in (1.0, 100.0):
        assert logged["normalised", scale] == pytest.approx(logged["sum", scale]), "the level of the sum is logged"


def test_what_cannot_be_normalised_is_refused():
    with pytest.raises(ValueError, match="combine='mean' is unknown: choose sum or normalised"):
        AdvantageSettings(combine="mean")
    first = ReasoningT2I(**SIZE)
    with pytest.raises(ValueError, match=r"SelfReflection compares those of one round.*combine to sum"):
        make_module(combine="normalised", task=SelfReflection(first=first, max_tokens=4, candidates=2))


def module_default(group):
    return advantages(REWARDS, group.scores.text_reward_N, 4, image_mask_N=group.scores.well_formed_N).image_N


# ----------------------------------------------------------------- loss and update


def test_the_text_weight_of_a_group_is_in_the_loss():
    """Mixed training whose refinement has no text weight = one whose texts of refinement are not trained at all."""
    first = ReasoningT2I(**{**SIZE, "think": False})

    def run(weight, **changes):
        settings = {"guidance": SIZE["guidance"], "text_weight": weight, "rectification": None}
        task = SelfReflection(first, max_tokens=3, candidates=4, **settings)
        return weights(trained(policy=TinyBagel(), task=task, **changes)[0])

    none = run(0.0)
    assert_same_weights(none, run(1.0, objective=GRPO(text_weight=0.0)))
    half = run(0.5)
    assert_same_weights(half, run(1.0, objective=GRPO(text_weight=0.5)))
    assert any((half[name] - none[name]).abs().max() > 1e-4 for name in none)


class Idle(ReasoningT2I):
    """Whose idle micro-batches replay a sample with other log-probabilities than were drawn."""

    def rollout(self, rollout):
        (group,) = super().rollout(rollout)
        sample = group.trajectories[0]
        text = dataclasses.replace(sample.texts[0], log_prob_T=sample.texts[0].log_prob_T - 1.0)
        spare = dataclasses.replace(sample, segments=(text, sample.image))
        return [dataclasses.replace(group, spare=(spare,))]


def test_idle_micro_batches_leave_gradient_and_figures():
    """With a KL term a sample of advantage 0 has a loss too."""
    results = []
    for idle in (0, 2):
        module = make_module(
            task=Idle(**SIZE), objective=GRPO(kl_image=0.5, kl_text=0.5), optimizer=plain_descent, gradient_clip=0.1
        )
        real = module._micro_batches
        module._micro_batches = lambda group, real=real, idle=idle: real(group) + idle
        logged = train(module, updates=3).callback_metrics
        results.append(
            (weights(module), {n: float(v) for n, v in logged.items() if not n.startswith(("time/", "memory/"))})
        )
    (alone, figures), (beside, same) = results
    assert_same_weights(alone, beside)
    assert figures["kl/text"] > 0 and figures["on_policy/ratio_error/text"] <= 1e-5
    for name, value in figures.items():
        if not name.startswith(("judge/", "memory/")):
            assert same[name] == pytest.approx(value, rel=1e-4, abs=2e-6), name


@pytest.mark.parametrize("largest", [1e-3, 1e-2])
def test_the_gradient_has_at_most_the_norm_of_its_clip(largest):
    module = configured(gradient_clip=largest, optimizer=plain_descent)
    before = weights(module)
    trainer = train(module, updates=1)
    moved = torch.cat([(p.detach() - before[name]).flatten() for name, p in module.named_parameters()]).norm()
    assert trainer.callback_metrics["grad_norm"] > 1e-2
    assert moved.item() == pytest.approx(largest, rel=1e-3)


def test_updates_per_rollout_are_optimizer_steps_and_the_first_is_on_policy():
    module = make_module(per_rollout=3, optimizer=plain_descent, objective=GRPO(clip_image=1.0))
    logged = train(module, updates=2).callback_metrics
    assert module.updates == 2 and module.trainer.global_step == 6
    assert logged["on_policy/ratio_error/text"] <= 1e-5 < logged["mean_ratio_error/text"]


@pytest.mark.parametrize("exact", [True, False])
def test_the_context_gradient_is_the_tasks_affair(exact):
    module, seen = configured(context_gradient=exact), []
    module.task.replay = lambda *args, context_gradient: seen.append(context_gradient)
    module.replay(types.SimpleNamespace(trajectories=()))
    assert seen == [exact]


class Silent(RandomReward):
    """No reward in the updates given."""

    def __init__(self, *updates):
        super().__init__(seed=1)
        self.updates = updates

    def score(self, trajectories):
        output = super().score(trajectories)
        if trajectories[0].key.update in self.updates:
            output.reward_N[:] = float("nan")
        return output


def test_skipped_updates_are_counted_in_a_row():
    module, trainer = trained(updates=2, rewards=[Silent(0, 1, 3, 4)], max_skipped=3)
    assert module.updates == 6 and trainer.global_step == 2
    module, trainer = trained(updates=2, rewards=[Silent(0, 1, 3, 4)], max_skipped=2)
    assert module.updates == 2 and trainer.global_step == 0


def test_a_bound_on_skipped_updates_holds_for_gradients_that_are_not_finite_too():
    class NotFinite(GRPO):
        def __call__(self, inputs):
            outputs = super().__call__(inputs)
            return dataclasses.replace(outputs, loss=outputs.loss * float("nan"))

    module, _ = trained(updates=5, objective=NotFinite(), max_skipped=2)
    assert module.updates == 2


# ----------------------------------------------------------------- what is trained


def test_the_first_pattern_that_matches_gives_a_parameter_its_options():
    module = configured(parameter_groups={r"qkv\.0": {"lr": 1e-2}, "qkv": {"lr": 1e-4}, "weight": {"lr": 1e-5}})
    rates = {p: group["lr"] for group in module.configure_optimizers().param_groups for p in group["params"]}
    named = dict(module.named_parameters())
    names = ("policy.qkv.0.weight", "policy.qkv.1.weight", "policy.words.weight", "policy.write_word.bias")
    assert [rates[named[name]] for name in names] == [1e-2, 1e-4, 1e-5, 1e-3]


def test_what_is_trained_is_fp32_and_what_is_frozen_stays_narrow():
    model = prepare(NewDenseModel().load().to(torch.bfloat16), None, ["write_word"])
    for name, parameter in model.named_parameters():
        frozen = name.startswith("write_word")
        assert parameter.requires_grad == (not frozen)
        assert parameter.dtype == (torch.bfloat16 if frozen else torch.float32)


def moved_at_random(parameters):
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.3 * torch.randn_like(parameter)


@pytest.mark.parametrize(
    ("adapted", "reference", "away"), [(True, "base", True), (True, "start", False), (False, "base", False)]
)
def test_the_reference_is_the_base_without_adapters_or_the_model_at_the_start(tmp_path, adapted, reference, away):
    lora = None
    if adapted:
        lora = LoRA(rank=2, alpha=4, target=r"qkv\.\d+")
        model = NewDenseModel().load()
        add_lora(model, lora)
        moved_at_random(p for p in model.parameters() if p.requires_grad)
        save_adapter(model, tmp_path / "adapter", torch.float32)
        lora = dataclasses.replace(lora, adapter=str(tmp_path / "adapter"))
    module = configured(objective=GRPO(kl_text=0.1), lora=lora, reference=reference)
    (group,) = module.rollout(PROMPTS[:1])
    batch = types.SimpleNamespace(trajectories=group.trajectories)
    before = module.replay(batch)
    gap = (before.text_log_prob_RT - before.reference.text_log_prob_RT).abs().max()
    assert (gap > 1e-4) == away
    moved_at_random(module.trained)
    after = module.replay(batch)
    torch.testing.assert_close(after.reference.text_log_prob_RT, before.reference.text_log_prob_RT)
    assert (after.text_log_prob_RT - before.text_log_prob_RT).abs().max() > 1e-4


# ----------------------------------------------------------------- before training


class Order(RandomReward):
    """Notes when it is checked and asked."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def check(self, prompts):
        self.calls.append("check")

    def preflight(self):
        self.calls.append("preflight")

    def score(self, trajectories):
        self.calls.append("score")
        return super().score(trajectories)


def test_rewards_are_checked_before_they_are_asked():
    reward = Order()
    trained(rewards=[reward])
    assert reward.calls == ["check", "preflight", "score"]


class Rows(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, *args):
        self.outputs = outputs


def test_a_step_gives_its_groups_with_scores_and_advantages():
    rows = Rows()
    trained(callbacks=[rows])
    (group,) = rows.outputs["groups"]
    assert rows.outputs["group"] is group and group.scores is not None and group.advantages is not None
