"""What an objective adds to a plan: noised states that are trained, policies that are kept beside the trained one."""

from __future__ import annotations

import pytest

from project.models.lora import LoRA
from project.objectives.grpo import GRPO
from project.objectives.joint import Joint
from project.objectives.nft_image import NFTImage
from project.objectives.token_kl import TokenKL
from project.planning.run_plan import frozen_copies, workload
from project.samplers.guidance import UNGUIDED
from tests.helpers import backbones
from tests.helpers.sampling import ode
from tests.helpers.tiny_module import make_module

ADAPTERS = LoRA(rank=2, alpha=4, target=r"qkv\.\d+")
NFT = Joint(NFTImage(states=3), text_penalty=TokenKL(0.1))


@pytest.mark.parametrize(
    ("settings", "copies"),
    [
        (dict(), 0),
        (dict(objective=GRPO(kl_text=0.1)), 100),
        (dict(objective=GRPO(kl_text=0.1), lora=ADAPTERS), 0),
        (dict(objective=NFT, sampler=ode(6)), 100),
        (dict(objective=NFT, sampler=ode(6), per_rollout=2), 100 + 120),
        (dict(objective=NFT, sampler=ode(6), per_rollout=2, lora=ADAPTERS), 10),
    ],
)
def test_policies_that_are_kept_beside(settings, copies):
    assert frozen_copies(make_module(**settings), loaded=100, trained=10, whole=120) == copies


def test_noised_states_are_trained_like_steps():
    model = backbones.NewDenseModel().load()

    def of(**settings):
        module = make_module(**settings)
        return workload(module, model, module.task.turn, module.sampler, 12, 8, None)

    steps, states = of(), of(objective=NFT, sampler=ode(6))
    assert (steps.trained, steps.trained_guided) == (2, 2)
    assert (states.trained, states.trained_guided) == (3, 3)
    free = make_module().task.with_guidance(lambda _: UNGUIDED)
    assert of(objective=NFT, sampler=ode(6), task=free).trained_guided == 0
