"""Each objective, sampler and window trains a tiny policy for two updates, on-policy at every rollout's first step."""

from __future__ import annotations

import pytest
import torch

from project.callbacks.on_policy_gate import OnPolicyGate
from project.models.lora import LoRA
from project.objectives.awm_image import AWMImage
from project.objectives.base import ClipWidths, LossOutputs, Needs, Objective
from project.objectives.dr_grpo_text import DrGRPOText
from project.objectives.grpo import GRPO
from project.objectives.grpo_image import GRPOImage
from project.objectives.grpo_text import GRPOText
from project.objectives.gspo_text import GSPOText
from project.objectives.guard_image import GuardImage
from project.objectives.joint import Joint
from project.objectives.nft_image import NFTImage
from project.objectives.step_kl import StepKL
from project.objectives.token_kl import TokenKL
from project.objectives.truncated_image import TruncatedImage
from project.objectives.truncated_text import TruncatedText
from project.objectives.velocity_kl import VelocityKL
from project.samplers.constant_sde import ConstantSDE
from project.samplers.fixed_steps import FixedSteps
from project.samplers.flow_cps import FlowCPS
from project.samplers.flow_sde import FlowSDE
from project.samplers.guidance import Guidance
from project.samplers.sampler import Sampler
from project.samplers.schedule import Schedule
from project.samplers.sliding_window import SlidingWindow
from project.tasks.reasoning_t2i import ReasoningT2I
from tests.helpers.policies import TinyBagel
from tests.helpers.sampling import ode, sde
from tests.helpers.several_ranks import mixed
from tests.helpers.tiny_module import make_module, train


def sampler(window, transition=FlowSDE):
    return Sampler(schedule=Schedule(6), transition=transition(), window=window)


STEPS, ODE = sde(6, 2, (0, 4)), ode(6)
UNGUIDED = ReasoningT2I(height=8, width=8, max_tokens=4, top_p=1.0, guidance=Guidance(text=1.0))
SHARED = ReasoningT2I(height=8, width=8, max_tokens=4, shared_noise=True, guidance=Guidance(text=2.0))
RUNS = {
    "guard": dict(objective=Joint(GuardImage(1e-3), GRPOText())),
    "dr_grpo": dict(objective=Joint(GRPOImage(1e-3), DrGRPOText(4)), scale_rewards="none"),
    "gspo": dict(objective=Joint(GRPOImage(1e-3), GSPOText())),
    "truncated": dict(objective=Joint(TruncatedImage(1e-3), TruncatedText()), per_rollout=2),
    "velocity_kl": dict(objective=Joint(GRPOImage(1e-3), GSPOText(), image_penalty=VelocityKL(0.5))),
    "step_kl": dict(objective=Joint(GRPOImage(1e-3), image_penalty=StepKL(0.5), text_penalty=TokenKL(0.5))),
    "text": dict(objective=Joint(text=GSPOText()), sampler=ODE),
    "nft": dict(objective=Joint(NFTImage(), GRPOText()), sampler=ODE),
    "nft_twice": dict(objective=Joint(NFTImage(), GRPOText()), sampler=ODE, per_rollout=2),
    "nft_unguided": dict(objective=Joint(NFTImage(guided=False)), sampler=ODE, task=UNGUIDED),
    "nft_lora": dict(
        objective=Joint(NFTImage(), image_penalty=VelocityKL(0.5, at="noised")),
        sampler=ODE,
        per_rollout=2,
        lora=LoRA(rank=2, alpha=4, target=r"qkv\.\d+"),
    ),
    "awm": dict(objective=Joint(AWMImage(1e-3), GRPOText()), sampler=ODE, per_rollout=2),
    "remax": dict(baseline="greedy"),
    "dance": dict(sampler=sde(6, 2, (0, 4), transition=ConstantSDE())),
    "cps": dict(sampler=sde(6, 2, (0, 4), transition=FlowCPS())),
    "sliding": dict(sampler=sampler(SlidingWindow(2, (0, 4), every=1))),
    "fixed": dict(sampler=sampler(FixedSteps([0, 2, 3])), objective=Joint(GuardImage(1e-3), GSPOText())),
}


class Watch(OnPolicyGate):
    """Keeps what was logged of every update."""

    def __init__(self):
        super().__init__()
        self.logged = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        super().on_train_batch_end(trainer, pl_module, *args)
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.mark.parametrize("run", RUNS)
def test_two_updates(run):
    watch = Watch()
    module = make_module(micro_batch_size=12, **RUNS[run])
    train(module, updates=2, callbacks=[watch])
    assert len(watch.logged) == 2
    for logged in watch.logged:
        assert logged["grad_norm"] > 0 and logged["update/skipped"] == 0
        widths = module.objective.clip_widths
        told = {name.rpartition("/")[2] for name in logged if name.startswith("on_policy/ratio_error/")}
        assert told == {kind for kind in ("image", "text") if getattr(widths, kind) is not None}
        assert all(logged[f"on_policy/ratio_error/{kind}"] <= 1e-5 for kind in told)
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("lora", [None, LoRA(rank=2, alpha=4, target=r"qkv\.\d+")], ids=["all", "lora"])
def test_the_second_step_knows_the_velocity_of_the_first(lora):
    """At every rollout anew, also with a reference that has weights of its own."""
    seen = []

    class Compares(Objective):
        needs = Needs(reference=True, transitions=False, old_velocity=True)
        clip_widths = ClipWidths()

        def __call__(self, inputs):
            x_RKLD, sigma_K = inputs.replay.clean_RLD[:, None], torch.tensor([0.5])
            v_RKLD = inputs.replay.velocity(x_RKLD, sigma_K)
            old = inputs.replay.old_velocity
            assert (old is None) == inputs.first
            seen.append((v_RKLD.detach(), None if old is None else old(x_RKLD, sigma_K)))
            return LossOutputs(loss=(v_RKLD - inputs.image_advantage_B[:, None, None, None]).square().mean())

    train(make_module(objective=Compares(), sampler=ODE, per_rollout=2, micro_batch_size=12, lora=lora), updates=2)
    (first, _), (second, old), (third, _), (_, later) = seen
    torch.testing.assert_close(old, first, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(later, third, atol=1e-6, rtol=1e-5)
    assert (second - first).abs().max() > 1e-5, "proves nothing: no weight changed"


def test_what_the_rollout_keeps_is_in_no_checkpoint_and_trains_not(tmp_path):
    module = make_module(**RUNS["nft_lora"])
    trainer = train(module, updates=1)
    assert not any(".rollout." in name and p.requires_grad for name, p in module.named_parameters())
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=False)["state_dict"]
    assert saved and not any(".rollout." in name for name in saved)


def test_an_update_of_the_forward_process_does_not_depend_on_micro_batches():
    weights = []
    for size in (12, 5):
        module = make_module(**RUNS["nft_twice"], micro_batch_size=size, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        train(module, updates=2)
        weights.append([p.detach().clone() for p in module.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_loss_is_told_whose_samples_it_gets_and_of_which_round():
    told = []

    class Told(GRPO):
        def __call__(self, inputs):
            assert len(inputs.keys) == len(inputs.image_advantage_B) and len(set(inputs.keys)) == len(inputs.keys)
            told.append(inputs.round)
            return super().__call__(inputs)

    train(make_module(policy=TinyBagel(), task=mixed(), objective=Told(), micro_batch_size=12), updates=1)
    assert set(told) == {0, 1, 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(objective=Joint(GuardImage(), GSPOText()), sampler=ODE),
            "Joint of GuardImage, GSPOText trains random steps, and the sampler has no stochastic transition",
        ),
        (
            dict(objective=Joint(NFTImage(), GSPOText())),
            "Joint of NFTImage, GSPOText uses no log-probabilities of denoising steps, but the sampler takes random",
        ),
        (dict(objective=Joint(text=GSPOText())), "set model.init_args.sampler.transition to null"),
        (
            dict(objective=Joint(NFTImage(), image_penalty=VelocityKL(1.0)), sampler=ODE),
            "trains random steps",
        ),
        (
            dict(objective=Joint(AWMImage(guided=False)), sampler=ODE),
            r"trains the velocity without guidance, but the task draws with guidance.text=2.0",
        ),
        (dict(objective=GRPO(), baseline="greedy", image_baseline="context"), "set image_baseline to group"),
        (
            dict(objective=Joint(NFTImage()), sampler=ODE, task=SHARED, image_baseline="context"),
            "from one text and one noise are all the same, so that advantages.image_baseline=context makes",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_module(**settings)
