"""What the gate says of the noise floor of ratios, and which remedy it names."""

from __future__ import annotations

import types

import pytest
import torch

from project.callbacks.on_policy_gate import OnPolicyError, OnPolicyGate
from project.objectives.grpo import GRPO
from tests.helpers.tiny_module import make_module


def said(caplog, error=6e-6, **settings):
    """Warnings of a bf16 run whose image ratios are off by `error`, with a clip of 1e-5; and what was logged."""
    module = make_module(**{"objective": GRPO(), **settings})
    module.configure_model()
    module.policy.to(torch.bfloat16)
    logged = {}
    module.log = logged.__setitem__
    metrics = {"on_policy/ratio_error/image": torch.tensor(error), "on_policy/ratio_error/text": torch.tensor(0.0)}
    trainer = types.SimpleNamespace(callback_metrics=metrics, precision="bf16-mixed")
    OnPolicyGate().on_train_batch_end(trainer, module, None, None, 0)
    return [record.getMessage() for record in caplog.records if "noise floor" in record.getMessage()], logged


def test_the_remedy_is_named_where_it_is_not_in_use(caplog):
    (warning,), _ = said(caplog)
    assert "set model.init_args.objective.init_args.first_step_ratio to one" in warning


def test_with_the_remedy_there_is_nothing_to_warn_of_but_the_noise_is_logged(caplog):
    warnings, logged = said(caplog, objective=GRPO(first_step_ratio="one"))
    assert not warnings and logged["on_policy/max_ratio_error"] == pytest.approx(6e-6)
    with pytest.raises(OnPolicyError, match="nan"):
        said(caplog, error=float("nan"), objective=GRPO(first_step_ratio="one"))


def test_later_steps_on_a_rollout_are_clipped_by_measured_ratios(caplog):
    (warning,), _ = said(caplog, objective=GRPO(first_step_ratio="one"), per_rollout=2)
    assert "first_step_ratio" not in warning and "precision 32-true" in warning
