"""Trains a tiny policy on N ranks and saves its parameters.

    python -m tests.helpers.several_ranks N FILE rt2i|mixed|cut|kept|t2i|lora|forward STRATEGY

Prompts "1" and "3" never get a reward, so the ranks have unequal numbers of samples to replay.
"""

import re
import sys

import torch

from project.callbacks.on_policy_gate import OnPolicyGate
from project.models.lora import LoRA
from project.objectives.grpo import GRPO
from project.objectives.gspo_text import GSPOText
from project.objectives.joint import Joint
from project.objectives.nft_image import NFTImage
from project.objectives.token_kl import TokenKL
from project.objectives.velocity_kl import VelocityKL
from project.rewards.random import RandomReward
from project.samplers.guidance import Guidance
from project.tasks.reasoning_t2i import ReasoningT2I
from project.tasks.rectification import LearnedStop
from project.tasks.self_reflection import SelfReflection
from project.training.settings import RolloutAverage
from project.training.sharding import whole
from tests.helpers.policies import TinyBagel
from tests.helpers.sampling import ode, sde
from tests.helpers.tiny_module import PROMPTS, make_module, plain_descent, train

MEASURED = re.compile("time/|memory/|judge/seconds").match
"""What is never twice the same."""
FOUR = [*PROMPTS, PROMPTS[0].__class__(id="3", text="a red square")]


class OftenSilent(RandomReward):
    def score(self, trajectories):
        output = super().score(trajectories)
        silent = torch.tensor([trajectory.prompt.id in ("1", "3") for trajectory in trajectories])
        output.reward_N[silent] = float("nan")
        return output


class HalfStop(SelfReflection):
    """Every second sample has no second round."""

    def _finds_nothing(self, trajectory):
        return trajectory.key.sample % 2 == 0


class MostKeep(SelfReflection):
    """Half of the samples of one prompt keep their picture, and all of the others: a rank may have none to train."""

    def _finds_nothing(self, trajectory):
        return trajectory.key.prompt != "2" or trajectory.key.sample % 2 == 0


class OfTheText(RandomReward):
    """So that texts have an advantage where all samples keep one picture."""

    def __init__(self, seed):
        super().__init__(seed)
        self.text_only = True


def mixed(kind=HalfStop, learned_stop=None):
    guidance = Guidance(text=2.0, interval=(0.0, 1.0))
    first = ReasoningT2I(height=8, width=8, max_tokens=4, guidance=guidance)
    return kind(
        first,
        rounds=2,
        train_first=True,
        max_tokens=4,
        guidance=guidance,
        credit="own",
        learned_stop=learned_stop,
        rectification=None if learned_stop else "before",
    )


if __name__ == "__main__":
    ranks = int(sys.argv[1])
    # With a KL term a sample without an advantage has a loss too: an idle micro-batch must not.
    settings = {"objective": GRPO(kl_image=0.5, kl_text=0.5), "num_generations": 14}
    if sys.argv[3] in ("mixed", "cut"):
        settings |= {"policy": TinyBagel(), "task": mixed(), "num_generations": 4}
    rewards = [OftenSilent(seed=1)]
    if sys.argv[3] == "kept":
        task = mixed(MostKeep, LearnedStop(right_from=0.5, bonus=0.1))
        settings |= {"policy": TinyBagel(), "task": task, "num_generations": 4}
        rewards.append(OfTheText(seed=7))
    if sys.argv[3] == "cut":
        settings |= {"steps_per_backward": 1}
    if sys.argv[3] == "t2i":  # without a text much of what understands has no gradient
        task = ReasoningT2I(height=8, width=8, think=False, guidance=Guidance(text=2.0, interval=(0.0, 1.0)))
        settings |= {"policy": TinyBagel(), "task": task, "context_gradient": False, "num_generations": 4}
    if sys.argv[3] == "lora":
        settings |= {"policy": TinyBagel(), "lora": LoRA(rank=2, alpha=4), "num_generations": 4}
    if sys.argv[3] == "forward":  # noised states by keys, an average that draws rollouts, a greedy baseline
        parts = {"image_penalty": VelocityKL(0.5, at="noised"), "text_penalty": TokenKL(0.5)}
        settings |= {"objective": Joint(NFTImage(), GSPOText(), **parts), "sampler": ode(6), "per_rollout": 2}
        settings |= {"policy": TinyBagel(), "baseline": "greedy", "num_generations": 4}
        settings |= {"rollout_average": RolloutAverage(slope=0.5, highest=0.5)}
    settings = {"sampler": sde(6, 2, (0, 4), drawn="prompt"), **settings}
    module = make_module(optimizer=plain_descent, micro_batch_size=3, **settings)

    trainer = train(
        module,
        updates=2,
        rewards=rewards,
        callbacks=[OnPolicyGate()],
        batches=[FOUR] * 10,
        devices=ranks,
        strategy=sys.argv[4],
        use_distributed_sampler=False,
    )
    weights = {name: whole(p.detach()) for name, p in module.named_parameters()}
    if trainer.global_rank == 0:
        logged = {name: float(v) for name, v in trainer.callback_metrics.items() if not MEASURED(name)}
        torch.save({"weights": weights, "logged": logged}, sys.argv[2])
