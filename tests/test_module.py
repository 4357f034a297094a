"""The LightningModule on a tiny dense policy: whole updates, without any file or judge."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import types

import pytest
import torch
from lightning import Callback, Trainer

from project.callbacks.checkpoint import SaveLast
from project.callbacks.ema import EMA
from project.callbacks.on_policy_gate import OnPolicyError, OnPolicyGate
from project.datamodule import PromptLoader
from project.models.lora import LoRA
from project.objectives.grpo import GRPO
from project.rewards.base import Reward, RewardOutput
from project.rewards.format import ThinkTags
from project.rewards.random import RandomReward
from project.samplers.flow_sde import FlowSDE
from project.samplers.guidance import Guidance
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.self_reflection import SelfReflection
from project.training.lr_schedules import WarmupHoldDecay
from tests.helpers import ROOT, backbones
from tests.helpers.policies import TinyBagel
from tests.helpers.sampling import ode, sde
from tests.helpers.tiny_module import PROMPTS, make_module, plain_descent, train


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def test_two_updates_change_the_policy_and_log_what_matters():
    module = make_module()
    module.configure_model()
    before = weights(module)
    trainer = train(module, callbacks=[OnPolicyGate()])
    assert module.updates == 2
    assert any(not torch.equal(before[n], p) for n, p in module.named_parameters())
    logged = trainer.callback_metrics
    for name in ("reward/mean", "reward/zero_std_ratio", "grad_norm", "entropy", "ratio/text", "ratio/image"):
        assert torch.isfinite(logged[name]), name
    for phase in ("rollout_text", "rollout_image", "judge", "replay", "backward"):
        assert logged[f"time/{phase}"] > 0
    assert logged["on_policy/max_ratio_error"] <= 1e-5
    assert logged["clip_fraction/image"] == 0 and logged["clip_fraction/text"] == 0


@pytest.mark.parametrize("size", [1, 4, 12])
def test_the_update_does_not_depend_on_the_micro_batch(size):
    reference, other = (make_module(micro_batch_size=n, optimizer=plain_descent) for n in (7, size))
    train(reference, updates=1)
    train(other, updates=1)
    for (name, ours), theirs in zip(reference.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5, msg=name)


def trained_on(folder, ranks, task, strategy):
    file = folder / f"{task}_{ranks}.pt"
    if not file.is_file():
        command = [sys.executable, "-m", "tests.helpers.several_ranks", str(ranks), str(file), task, strategy]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.mark.parametrize(
    ("task", "number", "strategy"),
    [
        ("rt2i", 3, "auto"),
        pytest.param("rt2i", 7, "ddp", marks=pytest.mark.slow),
        ("mixed", 3, "fsdp2"),
        ("kept", 2, "fsdp2"),
        ("t2i", 2, "ddp"),
        pytest.param("lora", 2, "fsdp2", marks=pytest.mark.slow),  # the matrix of strategies has it
        ("forward", 2, "fsdp2"),
    ],
)
def test_any_number_of_ranks_with_unequal_work_equals_one(folder, task, number, strategy):
    """RT2I: 4 prompts x 14 samples, so that groups cross ranks; two of the prompts never get a reward.

    Mixed training has three groups an update, of which the last (a second round) is drawn by half of the samples. Where
    pictures are kept, the first of two ranks has none to train in the rounds, and the second has a few.
    """
    one, several = trained_on(folder, 1, task, "auto"), trained_on(folder, number, task, strategy)
    assert_equal_training(one, several)


@pytest.mark.parametrize(("number", "strategy"), [pytest.param(3, "ddp", marks=pytest.mark.slow), (2, "fsdp2")])
def test_ranks_that_cut_micro_batches_over_steps_equal_one_that_does_not(folder, number, strategy):
    assert_equal_training(trained_on(folder, 1, "mixed", "auto"), trained_on(folder, number, "cut", strategy))


def assert_equal_training(one, several):
    for name, weight in one["weights"].items():
        torch.testing.assert_close(several["weights"][name], weight, atol=1e-6, rtol=1e-5, msg=name)
    assert one["logged"].keys() == several["logged"].keys()
    for name, value in one["logged"].items():
        if name == "reward":
            continue  # the progress bar is that of its rank
        # Rounding errors themselves are what the on_policy and ratio-error figures show.
        assert several["logged"][name] == pytest.approx(value, rel=1e-4, abs=2e-6, nan_ok=True), name


def test_an_update_without_survivors_is_skipped_and_counted():
    skipped = []

    class Count(OnPolicyGate):
        def on_train_batch_end(self, trainer, *args):
            super().on_train_batch_end(trainer, *args)
            skipped.append(trainer.callback_metrics["update/skipped"].item())

    module = make_module()
    trainer = train(module, updates=2, rewards=[Sometimes(module, {0, 2})], callbacks=[Count()])
    assert skipped == [1, 0, 1, 0]
    assert module.updates == 4 and trainer.global_step == 2


class Sometimes(RandomReward):
    """No reward in the updates given."""

    def __init__(self, module, silent):
        super().__init__(seed=1)
        self.module, self.silent = module, silent

    def score(self, trajectories):
        output = super().score(trajectories)
        if self.module.updates in self.silent:
            output.reward_N[:] = float("nan")
        return output


class Rates(OnPolicyGate):
    """Keeps the learning rates after each update."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, trainer, *args):
        super().on_train_batch_end(trainer, *args)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("at", [1, 3])
def test_skipped_updates_do_not_disturb_what_is_saved(tmp_path, at):
    """Updates 1, 2 and 3 of 5 are skipped; saved before or in the midst of them, the run goes on as if unbroken."""
    schedule = lambda optimizer: WarmupHoldDecay(optimizer, warmup=1, hold=0.0, floor=0.1)  # noqa: E731

    def run(folder, resume=None):
        module, rates, ema = make_module(lr_scheduler=schedule), Rates(), EMA(decay=0.5)
        trainer = train(
            module,
            updates=2,
            rewards=[Sometimes(module, {1, 2, 3})],
            callbacks=[rates, ema, SaveLast(every_n_updates=1, keep_every_n_updates=at)],
            loader=PromptLoader(PROMPTS, prompts_per_update=1, seed=1),
            ckpt_path=resume,
            enable_checkpointing=True,
            default_root_dir=folder,
        )
        assert module.updates == 5 and trainer.global_step == 2
        return module, rates.rates, ema.average

    whole, rates, average = run(tmp_path / "whole")
    # The schedule takes a step where the optimizer does, and so reaches its end with the run.
    assert rates == pytest.approx([5e-4, 5e-4, 5e-4, 5e-4, 1e-4])
    saved = tmp_path / f"whole/checkpoints/update_{at}.ckpt"
    resumed, rates, resumed_average = run(tmp_path / "resumed", resume=saved)
    assert rates == pytest.approx([5e-4, 5e-4, 5e-4, 5e-4, 1e-4][at:])
    for (name, ours), theirs in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert all(torch.equal(resumed_average[name], value) for name, value in average.items())


def test_the_same_seed_gives_the_same_bits():
    one, two = make_module(), make_module()
    train(one)
    train(two)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


class WordReward(Reward):
    """1 for a reasoning whose first token is `wanted`, else 0."""

    def __init__(self, wanted):
        super().__init__()
        self.wanted = wanted

    def score(self, trajectories):
        return RewardOutput(reward_N=torch.tensor([float(t.texts[0].ids_T[0] == self.wanted) for t in trajectories]))


def test_a_verifiable_reward_rises():
    module = make_module(num_generations=16, micro_batch_size=48, optimizer=lambda p: torch.optim.Adam(p, lr=3e-3))
    means = []

    class Record(OnPolicyGate):
        def on_train_batch_end(self, trainer, *args):
            super().on_train_batch_end(trainer, *args)
            means.append(float(trainer.callback_metrics["reward/mean"]))

    wanted = backbones.WORDS.index("red")
    train(module, updates=40, rewards=[WordReward(wanted)], callbacks=[Record()], batches=[PROMPTS] * 40)
    assert sum(means[-5:]) / 5 > sum(means[:5]) / 5 + 0.3, means


class PartlyUnscored(Reward):
    """Random rewards, NaN for the samples of the given places."""

    def __init__(self, unscored, kept):
        super().__init__()
        self.unscored, self.kept = unscored, kept

    def score(self, trajectories):
        rewards = torch.tensor([t.key.sample * 0.3 + len(t.prompt.text) * 0.1 for t in trajectories])
        rewards[list(self.unscored)] = torch.nan
        return RewardOutput(reward_N=rewards)


def test_unscored_samples_leave_the_gradient():
    """Contract 4: a whole group and one more sample unscored = a run in which they never were."""
    masked = make_module(micro_batch_size=100, optimizer=plain_descent)
    train(masked, updates=1, rewards=[PartlyUnscored([4, 5, 6, 7], None)])
    without = make_module(micro_batch_size=100, optimizer=plain_descent)
    train(without, updates=1, rewards=[PartlyUnscored([], None)], batches=[[PROMPTS[0], PROMPTS[2]]] * 2)
    for (name, ours), theirs in zip(masked.named_parameters(), without.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5, msg=name)


def test_the_gate_stops_a_run_whose_replay_differs():
    module = make_module()
    replay, turn = module.task.replay, module.task.turn

    def cooler(*args, **kwargs):
        module.task.turn = dataclasses.replace(turn, temperature=0.9)
        try:
            return replay(*args, **kwargs)
        finally:
            module.task.turn = turn

    module.task.replay = cooler
    with pytest.raises(OnPolicyError, match="temperature"):
        train(module, updates=1, callbacks=[OnPolicyGate()])


def test_kl_against_the_weights_at_the_start():
    module = make_module(objective=GRPO(kl_image=0.02, kl_text=0.01))
    trainer = train(module, updates=3)
    assert trainer.callback_metrics["kl/image"] > 0 and trainer.callback_metrics["kl/text"] > 0


def test_lora_trains_adapters_only_and_keeps_the_base_out_of_the_checkpoint(tmp_path):
    module = make_module(lora=LoRA(rank=2, alpha=4, target=r"qkv\.\d+"), objective=GRPO(kl_text=0.01))
    trainer = train(module, updates=2)
    trainable = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == trainable and saved["updates"] == 2


def test_optimizer_options_and_freezing_by_pattern():
    module = make_module(freeze=["write_word"], parameter_groups={"qkv": {"lr": 1e-4, "eps": 1e-3}})
    module.configure_model()
    optimizer = module.configure_optimizers()
    rates = {p: (group["lr"], group["eps"]) for group in optimizer.param_groups for p in group["params"]}
    named = dict(module.named_parameters())
    assert rates[named["policy.qkv.0.weight"]] == (1e-4, 1e-3)
    assert rates[named["policy.words.weight"]] == (1e-3, 1e-8)
    assert named["policy.write_word.weight"] not in rates


def test_a_pattern_that_matches_nothing_is_refused():
    module = make_module(parameter_groups={"no_such_layer": {"lr": 1e-4}})
    module.configure_model()
    with pytest.raises(ValueError, match="no_such_layer"):
        module.configure_optimizers()


def test_learning_rates_follow_the_schedule():
    """4 steps, constant for 2, then down: factors 1, 1, 1, 1/2, and the floor after the last."""
    schedule = lambda optimizer: WarmupHoldDecay(optimizer, steps=4, warmup=1, hold=0.5, floor=0.1)  # noqa: E731
    module, rates = make_module(lr_scheduler=schedule), []

    class Record(OnPolicyGate):
        def on_train_batch_start(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = train(module, updates=4, callbacks=[Record()])
    rates.append(trainer.optimizers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 1e-4])


def test_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match="num_generations=1"):
        make_module(num_generations=1)


def test_no_reward_is_refused():
    module = make_module()
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="rewards"):
        trainer.fit(module, torch.utils.data.DataLoader([PROMPTS], batch_size=None, collate_fn=lambda x: x))


def test_refinement_and_first_pictures_are_trained_together(tmp_path):
    """Mixed training on a policy that reads pictures: two groups, own denominators, one optimizer step."""
    first = ReasoningT2I(height=8, width=8, max_tokens=4, guidance=Guidance(text=2.0, interval=(0.0, 1.0)))
    task = SelfReflection(first=first, rounds=2, train_first=True, max_tokens=4, credit="own")
    trained = {}
    for size in (2, 12):
        module = make_module(policy=TinyBagel(), task=task, micro_batch_size=size, optimizer=plain_descent)
        # With the usual rewards the second update blows the last bit of the first (1e-7) up to 4e-6; here it does not.
        trainer = train(module, rewards=[RandomReward(seed=2)], callbacks=[OnPolicyGate()])
        trained[size] = weights(module)
    logged = trainer.callback_metrics
    for name in ("loss/image", "srr/1/loss/image", "srr/1/loss/text", "srr/2/reward/mean", "srr/1/false_positives"):
        assert name in logged, name
    assert logged["on_policy/max_ratio_error"] <= 1e-5
    for name, value in trained[2].items():
        torch.testing.assert_close(trained[12][name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_first_pictures_without_thinking_are_trained_beside_their_refinement():
    first = ReasoningT2I(height=8, width=8, think=False, guidance=Guidance(text=2.0, interval=(0.0, 1.0)))
    task = SelfReflection(first=first, train_first=True, max_tokens=4, credit="own")
    settings = {"image_baseline": "context", "micro_batch_size": 3, "optimizer": plain_descent}
    module = make_module(policy=TinyBagel(), task=task, **settings)
    logged = train(module, rewards=[RandomReward(seed=2), ThinkTags()], callbacks=[OnPolicyGate()]).callback_metrics
    assert logged["on_policy/max_ratio_error"] <= 1e-5
    assert "srr/1/text/empty" in logged and "text/empty" not in logged
    assert all(math.isfinite(value) for value in logged.values())
    assert "srr/1/loss/text" in logged and "loss/text" not in logged, "of what is not there nothing is said"
    drawn, refined = module.validation_step(PROMPTS[:2], 0)["groups"]
    assert not any(t.texts for t in drawn.trajectories) and all(t.texts for t in refined.trajectories)


def test_more_candidates_than_samples_are_refused():
    first = ReasoningT2I(height=8, width=8, think=False)
    with pytest.raises(ValueError, match="candidates=5, but a prompt has num_generations=4 samples"):
        make_module(task=SelfReflection(first, candidates=5))


class Worse(Reward):
    """Refined pictures are never better than first ones."""

    def score(self, trajectories):
        return RewardOutput(reward_N=torch.tensor([0.9 - 0.1 * t.round - 0.01 * t.key.sample for t in trajectories]))


def test_where_nothing_improved_the_refinement_is_skipped_and_the_rest_trained():
    first = ReasoningT2I(height=8, width=8, max_tokens=4, guidance=Guidance(text=2.0, interval=(0.0, 1.0)))
    mixed = make_module(policy=TinyBagel(), task=SelfReflection(first, train_first=True), optimizer=plain_descent)
    logged = train(mixed, updates=1, rewards=[Worse()]).callback_metrics
    assert logged["srr/1/skipped"] == 1 and logged["update/skipped"] == 0
    alone = make_module(policy=TinyBagel(), task=first, optimizer=plain_descent)
    train(alone, updates=1, rewards=[Worse()])
    for (name, ours), theirs in zip(mixed.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5, msg=name)


def test_an_overlapped_judge_gives_the_same_update():
    at_once, overlapped = (make_module(overlap=overlap, optimizer=plain_descent) for overlap in (False, True))
    overlapped.task = ReasoningT2I(
        height=8, width=8, max_tokens=4, top_p=1.0, guidance=Guidance(text=2.0, interval=(0.0, 1.0)),
        prompts_per_forward=1,
    )  # fmt: skip
    train(at_once, updates=2)
    trainer = train(overlapped, updates=2)
    assert "time/judge" not in trainer.callback_metrics and trainer.callback_metrics["judge/seconds"] > 0
    for (name, ours), theirs in zip(at_once.named_parameters(), overlapped.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs[1], atol=1e-5, rtol=1e-4, msg=name)


def test_a_run_that_never_learns_ends(caplog):
    module = make_module(max_skipped=3)
    train(module, updates=50, rewards=[PartlyUnscored(range(12), None)], batches=[PROMPTS] * 50)
    assert module.updates == 3 and "3 updates in a row were skipped" in caplog.text


class EqualIn(RandomReward):
    """The same reward for every sample in the updates given."""

    def __init__(self, module, *updates):
        super().__init__(seed=1)
        self.module, self.updates = module, updates

    def score(self, trajectories):
        output = super().score(trajectories)
        if self.module.updates in self.updates:
            output.reward_N[:] = 0.5
        return output


def test_where_every_advantage_is_zero_momentum_moves_no_weight(caplog):
    module, steps = make_module(), Steps()
    train(module, updates=3, rewards=[EqualIn(module, 1)], callbacks=[steps])
    assert steps.skipped == [0, 1, 0, 0] and steps.moved == [True, False, True, True]
    assert "update 1 is skipped: every advantage is zero" in caplog.text


class NotFinite(GRPO):
    """A loss whose gradient is NaN in the updates given, while its ratios are in order."""

    def __init__(self, *updates):
        super().__init__()
        self.updates, self.module = updates, None

    def __call__(self, inputs):
        outputs = super().__call__(inputs)
        bad = self.module.updates in self.updates
        return dataclasses.replace(outputs, loss=outputs.loss * (float("nan") if bad else 1.0))


def broken_in(*updates):
    module = make_module(objective=NotFinite(*updates))
    module.objective.module = module
    return module


def test_a_gradient_that_is_not_finite_is_no_step(caplog, tmp_path):
    module = broken_in(1)
    steps = Steps()
    train(
        module, updates=3, callbacks=[OnPolicyGate(), SaveLast(every_n_updates=1), steps],
        enable_checkpointing=True, default_root_dir=tmp_path, batches=[PROMPTS] * 4,
    )  # fmt: skip
    assert steps.skipped == [0, 1, 0, 0] and steps.moved == [True, False, True, True]
    assert "update 1 is skipped: its gradient is not finite" in caplog.text
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in saved.values())


def test_gradients_that_stay_not_finite_end_the_run(caplog):
    module = broken_in(*range(50))
    train(module, updates=50, batches=[PROMPTS] * 50)
    assert module.updates == 3 and "3 updates in a row were skipped: the run stops" in caplog.text


class Steps(Callback):
    """Per update whether it was skipped, and whether a weight moved."""

    def __init__(self):
        self.skipped, self.moved = [], []

    def on_train_start(self, trainer, pl_module):
        self.before = weights(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        after = weights(pl_module)
        self.skipped.append(float(trainer.callback_metrics["update/skipped"]))
        self.moved.append(any(not torch.equal(after[name], value) for name, value in self.before.items()))
        self.before = after


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        ({"image": 1e-6, "text": 0.05}, None),
        ({"image": 6e-6, "text": 0.0}, "image ratio (6.0e-06) exceeds half the clip width (1.0e-05)"),
        ({"image": 0.0, "text": 0.2}, "text ratio (2.0e-01) exceeds half the clip width (2.0e-01)"),
        ({"image": float("nan"), "text": 0.0}, OnPolicyError),
        ({"image": 0.0, "text": float("inf")}, OnPolicyError),
    ],
)
def test_what_the_gate_says_of_bf16(errors, outcome, caplog):
    module = make_module()
    module.configure_model()
    module.policy.to(torch.bfloat16)
    module.log = lambda *args, **settings: None
    metrics = {f"on_policy/ratio_error/{part}": torch.tensor(value) for part, value in errors.items()}
    trainer = types.SimpleNamespace(callback_metrics=metrics, precision="bf16-true")
    gate = OnPolicyGate()
    if outcome is OnPolicyError:
        with pytest.raises(OnPolicyError, match=r"nan|inf"):
            gate.on_train_batch_end(trainer, module, None, None, 0)
        return
    gate.on_train_batch_end(trainer, module, None, None, 0)
    gate.on_train_batch_end(trainer, module, None, None, 1)
    warnings = [record.getMessage() for record in caplog.records if "noise floor" in record.getMessage()]
    assert len(warnings) == (outcome is not None) and all(outcome in warning for warning in warnings)


def test_settings_that_would_quietly_change_training_are_refused():
    with pytest.raises(ValueError, match=r"lora.dropout=0.1: replay would drop other activations"):
        make_module(lora=LoRA(dropout=0.1))
    for sampler in (ode(6), sde(6, transition=FlowSDE(0.0))):
        with pytest.raises(ValueError, match="draws nothing that could be trained"):
            make_module(sampler=sampler)
    with pytest.raises(ValueError, match="freeze: no parameter's name matches 'wirte_word'"):
        make_module(freeze=["wirte_word"]).configure_model()
    with pytest.raises(ValueError, match=r"freeze: '\(' is no regular expression"):
        make_module(freeze=["("]).configure_model()
    settings = dict(height=8, width=8, max_tokens=4, guidance=Guidance(text=2.0, interval=(0.0, 1.0)))
    with pytest.raises(ValueError, match="temperature=0 is for evaluation"):
        make_module(task=ReasoningT2I(temperature=0.0, **settings))
    for wrong in ({"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match="give a temperature from 0"):
            ReasoningT2I(**{**settings, **wrong})
    odd = make_module(policy=TinyBagel(), task=ReasoningT2I(**{**settings, "height": 13}))
    with pytest.raises(ValueError, match="13"):
        train(odd)
    assert odd.updates == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lrr": 1.0}, "write_word: the optimizer has no 'lrr': did you mean 'lr'"),
        ({"lr": -1.0}, r"write_word: lr = -1.0: give what the optimizer takes \(its own is 0.001\)"),
        ({"lr": "fast"}, "write_word: lr = 'fast'"),
        ({"betas": 0.9}, "write_word: betas = 0.9"),
    ],
)
def test_options_that_an_optimizer_would_ignore_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        train(make_module(parameter_groups={"write_word": options}))


def test_a_checkpoint_of_another_policy_is_refused():
    module = make_module()
    module.configure_model()
    fits = {name: p.detach() for name, p in module.named_parameters()}
    module.on_load_checkpoint({"updates": 4, "state_dict": {name: fits[name] for name in list(fits)[:2]}})
    assert module.updates == 4, "what is frozen is in no checkpoint"
    with pytest.raises(ValueError, match=r"1 parameters that the policy has not \(policy.words.lora_A"):
        module.on_load_checkpoint({"updates": 9, "state_dict": {**fits, "policy.words.lora_A": torch.zeros(1)}})
    assert module.updates == 4
