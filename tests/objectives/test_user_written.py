"""Objectives as a user writes them, in one class each: what `Needs` and `Replay` offer is enough to train by them."""

from __future__ import annotations

import logging

import pytest
import torch

from project.callbacks.on_policy_gate import OnPolicyError, OnPolicyGate
from project.models.lora import LoRA
from project.objectives.base import ClipWidths, LossOutputs, Mean, Needs, Objective
from project.objectives.terms import clipped_loss
from tests.helpers.sampling import ode
from tests.helpers.tiny_module import make_module, train


class RatioNorm(Objective):
    """Image ratios without the bias of their mean drift and with a spread that is the same for every step.

    `(log_ratio + |d|^2 / (2 s^2)) s`, d = drift of the mean, s = standard deviation; the loss of a step is divided by
    its dt (GRPO-Guard, arXiv 2510.22319). All means are over the latent's dimensions, as log-probabilities are.
    """

    needs = Needs(rollout_means=True)
    clip_widths = ClipWidths(image=0.01)

    def __call__(self, inputs):
        replay, counts = inputs.replay, inputs.counts
        drift_RK = (replay.mean_RKLD - replay.old_mean_RKLD).square().mean((-2, -1)) / (2 * replay.std_RK.square())
        log_ratio_RK = (replay.image_log_prob_RK - replay.old_image_log_prob_RK + drift_RK) * replay.std_RK
        advantage_RK = inputs.image_advantage_B[replay.image_sample_R][:, None].expand_as(log_ratio_RK)
        loss_RK = clipped_loss(log_ratio_RK, advantage_RK, 0.01, 0.01) / -replay.dt_RK
        return LossOutputs(
            loss=loss_RK.sum() / counts.steps * counts.world_size,
            metrics={"drift": Mean.of(drift_RK, replay.step_mask_RK)},
            maxima={"ratio_error/image": torch.expm1(log_ratio_RK.detach()).abs().max()},
        )


class AdvantageWeightedMatching(Objective):
    """`A |v(x_sigma) - (noise - x0)|^2` at fixed flow times (AWM, arXiv 2509.25050, with one update per rollout)."""

    needs = Needs(transitions=False)
    clip_widths = ClipWidths()

    def __call__(self, inputs):
        clean_RLD, sigma_K = inputs.replay.clean_RLD, torch.tensor([0.25, 0.5, 0.75])
        weight_K11 = sigma_K.to(clean_RLD.device)[:, None, None]
        clean_R1LD = clean_RLD[:, None]
        noise_RKLD = torch.randn_like(clean_R1LD.expand(-1, len(sigma_K), -1, -1))
        noised_RKLD = (1 - weight_K11) * clean_R1LD + weight_K11 * noise_RKLD
        v_RKLD = inputs.replay.velocity(noised_RKLD, sigma_K, guided=False)
        error_R = (v_RKLD - (noise_RKLD - clean_R1LD)).square().mean((1, 2, 3))
        loss = (inputs.image_advantage_B * error_R).sum() / inputs.counts.samples
        return LossOutputs(
            loss=loss * inputs.counts.world_size, metrics={"matching": Mean.of(error_R, torch.ones_like(error_R))}
        )


class Silent(RatioNorm):
    """Clips, but does not tell its ratios."""

    def __call__(self, inputs):
        return LossOutputs(loss=super().__call__(inputs).loss)


class Watch(OnPolicyGate):
    """Keeps what was logged of every update, and which parameters moved."""

    def __init__(self):
        super().__init__()
        self.logged, self.moved = [], set()

    def on_train_start(self, trainer, pl_module):
        self.start = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, *args):
        super().on_train_batch_end(trainer, pl_module, *args)
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.moved |= {name for name, p in pl_module.named_parameters() if not torch.equal(p, self.start[name])}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def test_ratios_normalised_by_the_drift_of_their_mean_are_one_at_first_and_train_what_draws():
    watch = Watch()
    train(make_module(objective=RatioNorm(), optimizer=sgd), updates=2, callbacks=[watch])
    for logged in watch.logged:
        assert logged["on_policy/ratio_error/image"] <= 1e-6
        assert logged["drift"] == pytest.approx(0.0, abs=1e-10), "before an update no mean has drifted"
        assert logged["grad_norm"] > 0
    assert {"policy.write_latent.weight", "policy.qkv.0.weight"} <= watch.moved
    assert "policy.write_word.weight" not in watch.moved


def test_the_second_update_of_a_rollout_sees_the_drift():
    watch = Watch()
    train(make_module(objective=RatioNorm(), optimizer=sgd, per_rollout=2), updates=1, callbacks=[watch])
    (logged,) = watch.logged
    assert logged["on_policy/ratio_error/image"] <= 1e-6 and logged["drift"] > 1e-10


def test_a_loss_of_the_forward_process_trains_with_a_sampler_that_has_no_transition(caplog):
    watch = Watch()
    with caplog.at_level(logging.WARNING):
        train(
            make_module(objective=AdvantageWeightedMatching(), sampler=ode(6), optimizer=sgd),
            updates=2,
            callbacks=[watch],
        )
    for logged in watch.logged:
        assert logged["matching"] > 0 and logged["grad_norm"] > 0
    assert {"policy.write_latent.weight", "policy.time.weight"} <= watch.moved
    assert caplog.text.count("AdvantageWeightedMatching has no ratios: the on-policy gate has nothing to check") == 1


@pytest.mark.parametrize("lora", [None, LoRA(rank=2, alpha=4, target=r"qkv\.\d+")])
def test_the_reference_has_a_velocity_of_its_own(lora):
    """At the start it is the policy's, later it is not: so a penalty on the velocity is an objective too."""
    differences = []

    class HeldVelocity(AdvantageWeightedMatching):
        needs = Needs(reference=True, transitions=False)

        def __call__(self, inputs):
            x_RKLD, sigma_K = inputs.replay.clean_RLD[:, None], torch.tensor([0.5])
            v_RKLD = inputs.replay.velocity(x_RKLD, sigma_K)
            reference_RKLD = inputs.replay.reference.velocity(x_RKLD, sigma_K)
            assert v_RKLD.requires_grad and not reference_RKLD.requires_grad
            differences.append(float((v_RKLD - reference_RKLD).detach().abs().max()))
            return super().__call__(inputs)

    settings = dict(objective=HeldVelocity(), sampler=ode(6), optimizer=sgd, micro_batch_size=12, lora=lora)
    train(make_module(**settings), updates=2)
    assert differences[0] == 0 < differences[1]


def test_an_objective_that_clips_must_report_its_ratios():
    with pytest.raises(OnPolicyError, match="Silent clips the image ratio but reports no `ratio_error/image`"):
        train(make_module(objective=Silent()), updates=1, callbacks=[OnPolicyGate()])


def test_an_objective_that_needs_transitions_is_refused_without_them():
    with pytest.raises(ValueError, match="draws nothing that could be trained"):
        make_module(objective=RatioNorm(), sampler=ode(6))


def test_normalised_ratios_have_no_bias_and_one_spread():
    """x' ~ N(old mean, s): the log-ratio to a mean that drifted has mean -|d|^2 / (2 s^2), the normalised one 0."""
    torch.manual_seed(0)
    samples, drift = 200_000, 0.3
    for std in (0.2, 1.0):
        noise_N = torch.randn(samples) * std
        log_ratio_N = (noise_N.square() - (noise_N - drift).square()) / (2 * std**2)
        assert log_ratio_N.mean().item() == pytest.approx(-(drift**2) / (2 * std**2), abs=0.02)
        normalised_N = (log_ratio_N + drift**2 / (2 * std**2)) * std
        assert normalised_N.mean().item() == pytest.approx(0.0, abs=0.01)
        assert normalised_N.std().item() == pytest.approx(drift, rel=0.01)
