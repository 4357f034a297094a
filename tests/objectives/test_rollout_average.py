"""`update.rollout_average`: rollouts by an average of past policies, as DiffusionNFT has them."""

from __future__ import annotations

import logging

import pytest
import torch
from lightning import Callback

from project.callbacks.on_policy_gate import OnPolicyGate
from project.models.lora import LoRA
from project.objectives.grpo import GRPO
from project.objectives.grpo_text import GRPOText
from project.objectives.joint import Joint
from project.objectives.nft_image import NFTImage
from project.tasks.reasoning_t2i import ReasoningT2I
from project.training.rollout_policy import RolloutPolicy
from project.training.settings import RolloutAverage
from tests.helpers.sampling import ode
from tests.helpers.tiny_module import make_module, train

NFT = dict(objective=Joint(NFTImage(), GRPOText()), sampler=ode(6), micro_batch_size=12)
SOME = RolloutAverage(slope=0.5, highest=0.6)
LORA = LoRA(rank=2, alpha=4, target=r"qkv\.\d+", init="gaussian")


class Watch(Callback):
    """Trained weights after every update."""

    def __init__(self):
        self.after = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.after.append(trained(module))


def trained(module):
    return [p.detach().clone() for p in module.parameters() if p.requires_grad]


def drawn_by(monkeypatch):
    """The velocity at a state that says which weights every rollout has."""
    real, seen = ReasoningT2I.rollout, []

    def rollout(task, rollout):
        ids = torch.tensor([1, 2, 3])
        context = rollout.model.append_text(rollout.model.functional_context(1), [ids])
        seen.append(rollout.model.first_token_log_probs(context).detach())
        return real(task, rollout)

    monkeypatch.setattr(ReasoningT2I, "rollout", rollout)
    return seen


def said_by(module, weights):
    """What the model says at that state with these weights."""
    ids = torch.tensor([1, 2, 3])
    with torch.no_grad():
        for parameter, value in zip((p for p in module.parameters() if p.requires_grad), weights, strict=True):
            parameter.copy_(value)
        return module.model.first_token_log_probs(module.model.append_text(module.model.functional_context(1), [ids]))


@pytest.mark.parametrize("lora", [None, LORA], ids=["all", "lora"])
def test_the_average_by_hand(monkeypatch, lora):
    seen, watch = drawn_by(monkeypatch), Watch()
    module = make_module(**NFT, lora=lora, rollout_average=SOME, optimizer=lambda p: torch.optim.SGD(p, lr=3.0))
    module.configure_model()
    start = trained(module)
    train(module, updates=3, callbacks=[watch])
    first, second = watch.after[:2]
    once = [0.5 * old + 0.5 * new for old, new in zip(start, first, strict=True)]  # d = 0.5 * 1
    twice = [0.6 * old + 0.4 * new for old, new in zip(once, second, strict=True)]  # d = min(0.5 * 2, 0.6)
    for said, weights in zip(seen, (start, once, twice), strict=True):
        torch.testing.assert_close(said, said_by(module, weights), atol=1e-6, rtol=1e-5)
    assert (seen[1] - said_by(module, first)).abs().max() > 1e-5, "proves nothing: the average is the policy"


def test_without_past_it_is_the_policy():
    weights = []
    for average in (None, RolloutAverage(slope=0.0)):
        module = make_module(**NFT, rollout_average=average)
        train(module, updates=3)
        weights.append(trained(module))
    for plain, averaged in zip(*weights, strict=True):
        torch.testing.assert_close(averaged, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lora", [None, LORA], ids=["all", "lora"])
def test_a_resumed_run_goes_on_with_the_average(tmp_path, lora):
    def run(updates, **settings):
        torch.manual_seed(0)  # new adapters are drawn at random
        module = make_module(**NFT, lora=lora, rollout_average=SOME)
        return module, train(module, updates=updates, **settings)

    whole, _ = run(4)
    _, trainer = run(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = run(4, ckpt_path=tmp_path / "half.ckpt")
    for ours, theirs in zip(trained(resumed), trained(whole), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-6)


def test_a_run_without_an_average_saves_none(tmp_path):
    train(make_module(**NFT, per_rollout=2), updates=1).save_checkpoint(tmp_path / "saved.ckpt")
    assert "rollout_policy" not in torch.load(tmp_path / "saved.ckpt", weights_only=False)


def test_an_average_of_other_parameters_is_refused(tmp_path):
    module = make_module(**NFT, rollout_average=SOME)
    module.configure_model()
    kept = RolloutPolicy(module.model, SOME)
    kept.remember(module.model, 0)
    state = kept.state(module.model)
    average = state["rollout_policy"]
    average["other"] = average.pop(next(iter(average)))
    with pytest.raises(ValueError, match="average of past policies holds other parameters"):
        kept.load(module.model, state)


def test_only_the_first_rollout_is_on_policy(caplog):
    told, ratios = [], []

    class Told(Joint):
        def __call__(self, inputs):
            told.append((inputs.first, inputs.replay.old_velocity is None))
            outputs = super().__call__(inputs)
            ratios.append(float(outputs.maxima["ratio_error/text"]))
            return outputs

    module = make_module(**NFT | dict(objective=Told(NFTImage(), GRPOText())), rollout_average=SOME)
    with caplog.at_level(logging.WARNING):
        train(module, updates=3, callbacks=[OnPolicyGate()])
    assert told == [(True, True), (False, False), (False, False)]
    assert ratios[0] <= 1e-5 < min(ratios[1:])
    assert sum("only the first is checked" in record.message for record in caplog.records) == 1


def test_ratios_of_two_policies_are_refused():
    with pytest.raises(ValueError, match=r"update\.rollout_average, but GRPO of .* compares no velocity"):
        make_module(objective=GRPO(), rollout_average=SOME)


@pytest.mark.parametrize("numbers", [dict(slope=-0.1), dict(highest=1.0), dict(highest=-0.1)])
def test_numbers_out_of_range(numbers):
    with pytest.raises(ValueError, match="give a slope of at least 0"):
        RolloutAverage(**numbers)
