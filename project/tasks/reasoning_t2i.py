"""Reasoning text-to-image (RT2I): think system prompt, prompt, reasoning, image."""

from __future__ import annotations

from project.samplers.guidance import Guidance
from project.tasks.base import Rollout
from project.tasks.drawing import Canvas
from project.tasks.one_turn import OneTurn
from project.tasks.request import Request
from project.tasks.turn import Turn
from project.trajectory import Group


class ReasoningT2I(OneTurn):
    """One trajectory is reasoning text, then an image.

    Args:
        height, width: size of the pictures [pixels].
        think: write reasoning before drawing; without it a trajectory is an image alone.
        max_tokens: most reasoning tokens. A longer text is cut off; its forced end is not trained.
        temperature: temperature of the reasoning; 0 = greedy (evaluation only).
        top_p: share of the probability that reasoning tokens are drawn from.
        guidance: classifier-free guidance, the same in rollout and in replay.
        shared_noise: start all samples of a group from one initial noise.
        images_per_text: samples of a group that share a reasoning text; 1 = a text for each sample (the paper). With
            more, `image_baseline: context` can separate what a picture earned from what its text earned.
        prompts_per_forward: prompts whose G samples are drawn together; None = all of an update.
        texts_per_forward: prompts whose G samples write their texts together, before any of them is drawn; None = as
            many as are drawn together. Every token reads all weights once, whatever the number of texts. A waiting text
            keeps its tokens and those of its prompt in memory, 57 kB for each token of BAGEL-7B in bf16.
    """

    def __init__(
        self,
        height: int = 512,
        width: int = 512,
        think: bool = True,
        max_tokens: int = 512,
        temperature: float = 1.0,
        top_p: float = 0.8,
        guidance: Guidance = Guidance(),
        shared_noise: bool = False,
        images_per_text: int = 1,
        prompts_per_forward: int | None = None,
        texts_per_forward: int | None = None,
    ) -> None:
        turn = Turn(
            canvas=Canvas(height=height, width=width, guidance=guidance, shared_noise=shared_noise),
            think=think,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            images_per_text=images_per_text,
        )
        super().__init__(turn)
        self.prompts_per_forward = prompts_per_forward
        self.texts_per_forward = texts_per_forward

    def rollout(self, rollout: Rollout) -> list[Group]:
        requests = [
            Request(prompt=rollout.prompt(n), key=rollout.keys[n], text=rollout.prompt(n).text) for n in rollout.mine
        ]
        texts = self.texts_per_forward or self.prompts_per_forward
        return [self.turn.rollout_group(rollout, requests, self.prompts_per_forward, texts)]
