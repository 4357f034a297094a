"""Trains on two ranks; in the third update the judge is lost to one of them:
`python -m tests.helpers.ranks_dead_judge FOLDER whole|parts|resumed`.

Three updates as a whole; as far as it gets; what is left. Every rank saves its weights, and what was caught. Each stage
has processes of its own.
"""

import sys
from pathlib import Path

import torch

from project.callbacks.checkpoint import SaveLast
from project.core.errors import ScoringFailed
from project.datamodule import PromptLoader
from project.judges.base import JudgeUnavailable
from project.rewards.random import RandomReward
from tests.helpers.tiny_module import PROMPTS, make_module, plain_descent, train

FOUR = [*PROMPTS, PROMPTS[0].__class__(id="3", text="a red square")]


class Lost(RandomReward):
    """Its judge is lost to rank 1 in the third update."""

    module = None

    def score(self, trajectories):
        if self.module.updates == 2 and self.module.trainer.global_rank == 1:
            raise JudgeUnavailable("nobody answers")
        return super().score(trajectories)


def run(folder, reward, ckpt_path=None):
    module = make_module(optimizer=plain_descent)
    reward.module = module
    trainer = train(
        module,
        updates=3,
        rewards=[reward],
        callbacks=[SaveLast(every_n_updates=100)],
        loader=PromptLoader(FOUR, prompts_per_update=2, seed=1),
        ckpt_path=ckpt_path,
        enable_checkpointing=True,
        default_root_dir=folder,
        devices=2,
        strategy="ddp",
        use_distributed_sampler=False,
    )
    return trainer.global_rank, {name: p.detach() for name, p in module.named_parameters()}


if __name__ == "__main__":
    home, stage = Path(sys.argv[1]), sys.argv[2]
    caught = None
    try:
        if stage == "whole":
            rank, weights = run(home / "whole", RandomReward(seed=1))
        elif stage == "parts":
            run(home / "parts", Lost(seed=1))
        else:
            rank, weights = run(home / "parts", RandomReward(seed=1), ckpt_path=home / "parts/checkpoints/last.ckpt")
    except ScoringFailed as error:
        caught, weights, rank = str(error), {}, torch.distributed.get_rank()
    torch.save({"weights": weights, "caught": caught}, home / f"{stage}_{rank}.pt")
