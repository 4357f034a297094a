from __future__ import annotations

import itertools

import pytest
import torch

from project.samplers.fixed_steps import FixedSteps
from project.samplers.flow_cps import FlowCPS
from project.samplers.flow_sde import FlowSDE
from project.samplers.guidance import Guidance
from project.samplers.sampler import Sampler
from project.samplers.schedule import Schedule
from project.tasks.base import Rollout
from project.tasks.reasoning_t2i import ReasoningT2I
from project.trajectory import Prompt
from tests.helpers import backbones
from tests.helpers.sampling import at


def sampler(numbers, transition=FlowSDE, window=None):
    return Sampler(schedule=Schedule(7), transition=transition(), window=window or FixedSteps(numbers))


def test_it_is_the_same_for_every_update_and_prompt():
    fixed = sampler([0, 2, 5])
    assert {tuple(fixed.steps(at(0, update, prompt=str(update)))) for update in range(20)} == {(0, 2, 5)}
    assert [list(steps) for steps in fixed.windows] == [[0, 2, 5]] and fixed.window_size == 3


@pytest.mark.parametrize("numbers", [[0, 2, 5], [1, 2, 3]])
def test_steps_apart_are_drawn_kept_and_replayed(numbers):
    """Each trained transition is the one that was taken: its ratio is 1 and the states between follow the ODE."""
    model, fixed = backbones.NewDenseModel().load(), sampler(numbers)
    task = ReasoningT2I(height=8, width=8, think=False, guidance=Guidance(text=2.0, interval=(0.0, 1.0)))
    keys = [at(0, 0, prompt="a", sample=g) for g in range(2)]
    rollout = Rollout(
        model=model,
        prompts=[Prompt(id="a", text="a red circle")],
        keys=keys,
        sampler=fixed,
        training=True,
        stochastic=True,
        keep_means=True,
    )
    (group,) = task.rollout(rollout)
    replay = task.replay(model, group.trajectories, fixed, context_gradient=True)
    assert group.trajectories[0].image.step_K.tolist() == numbers
    torch.testing.assert_close(replay.image_log_prob_RK, replay.old_image_log_prob_RK, atol=1e-5, rtol=0)
    torch.testing.assert_close(replay.mean_RKLD, replay.old_mean_RKLD, atol=1e-5, rtol=0)
    image = group.trajectories[0].image
    for k, (step, following) in enumerate(itertools.pairwise(numbers)):
        assert torch.equal(image.next_KLD[k], image.latents_KLD[k + 1]) == (following == step + 1)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [([], "at least one evaluation"), ([2, 1], "rising order"), ([1, 1], "each once")],
)
def test_lists_that_mean_nothing_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        FixedSteps(numbers)


def test_evaluations_that_cannot_be_random_are_refused():
    with pytest.raises(ValueError, match="numbered from 0 to 5; take these or a larger num_steps"):
        sampler([0, 6])
    with pytest.raises(ValueError, match="numbered from 0 to 4"):
        sampler([0, 5], transition=FlowCPS)
