"""Reasoning text-to-image (RT2I): think system prompt, prompt, reasoning, image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from project.models.base import UnifiedModel
from project.samplers.guidance import Guidance
from project.samplers.sampler import Sampler
from project.tasks.base import ChangeGuidance, Rollout, Task
from project.tasks.drawing import Canvas
from project.tasks.parts import ReplayPart
from project.tasks.turn import Request, Turn
from project.trajectory import Group, Replay, Trajectory


class ReasoningT2I(Task):
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
        prompts_per_forward: so many times G samples are drawn together; if None, all of an update.
        texts_per_forward: so many times G samples write their texts together, before any of them is drawn; if None,
            as many as are drawn together. Writing reads all weights for every token, whatever the number of texts. A
            waiting text keeps its tokens and those of its prompt in memory, 57 kB for each token of BAGEL-7B in bf16.
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
        self.turn = Turn(
            canvas=Canvas(height=height, width=width, guidance=guidance, shared_noise=shared_noise),
            think=think,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            images_per_text=images_per_text,
        )
        self.prompts_per_forward = prompts_per_forward
        self.texts_per_forward = texts_per_forward

    @property
    def turns(self) -> Sequence[Turn]:
        return (self.turn,)

    def with_guidance(self, change: ChangeGuidance) -> ReasoningT2I:
        return self._changed(turn=self.turn.with_guidance(change))

    def greedy(self) -> ReasoningT2I:
        return self._changed(turn=self.turn.greedy())

    def rollout(self, rollout: Rollout) -> list[Group]:
        requests = [
            Request(prompt=rollout.prompt(n), key=rollout.keys[n], text=rollout.prompt(n).text) for n in rollout.mine
        ]
        texts = self.texts_per_forward or self.prompts_per_forward
        return [self.turn.rollout_group(rollout, requests, self.prompts_per_forward, texts)]

    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        requests = self._requests(trajectories)
        return self.turn.replay(model, requests, trajectories, sampler, context_gradient=context_gradient)

    def replay_parts(
        self,
        model: UnifiedModel,
        trajectories: Sequence[Trajectory],
        sampler: Sampler,
        *,
        context_gradient: bool,
        steps: int,
    ) -> Iterator[ReplayPart]:
        requests = self._requests(trajectories)
        return self.turn.replay_parts(
            model, requests, trajectories, sampler, context_gradient=context_gradient, steps=steps
        )

    def _requests(self, trajectories: Sequence[Trajectory]) -> list[Request]:
        """What the samples of a replay start from."""
        return [Request(prompt=t.prompt, key=t.key, text=t.prompt.text) for t in trajectories]
