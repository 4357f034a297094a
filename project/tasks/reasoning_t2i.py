"""Reasoning text-to-image (RT2I): think system prompt, prompt, reasoning, image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from project.guidance import Guidance
from project.models.base import UnifiedModel
from project.models.context import Context, Contexts
from project.models.text import SampledText
from project.randomness import uniform
from project.samplers.base import Sampler
from project.tasks.base import Task
from project.tasks.drawing import Canvas, draw, replay_steps
from project.timing import Stopwatch
from project.trajectory import ImageSegment, Prompt, Replay, SampleKey, TextSegment, Trajectory


class ReasoningT2I(Task):
    """One trajectory is reasoning text, then an image.

    Args:
        height, width: of the pictures, in pixels.
        think: write reasoning before drawing; without it a trajectory is an image alone.
        max_tokens: most reasoning tokens (a longer text is cut off, its forced end is not trained).
        temperature: of the reasoning; 0 = greedy (evaluation only).
        top_p: share of the probability that reasoning tokens are drawn from.
        guidance: classifier-free guidance, in rollout and in training alike.
        shared_noise: one initial noise for all samples of a group.
        prompts_per_forward: prompts whose groups are drawn together; all of an update if None.
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
        prompts_per_forward: int | None = None,
    ) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens}: reasoning needs at least one token (or think=False)")
        self.canvas = Canvas(height=height, width=width, guidance=guidance, shared_noise=shared_noise)
        self.think = think
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.top_p = top_p
        self.prompts_per_forward = prompts_per_forward

    @torch.no_grad()
    def rollout(
        self,
        model: UnifiedModel,
        prompts: Sequence[Prompt],
        keys: Sequence[SampleKey],
        sampler: Sampler,
        window: range,
        stopwatch: Stopwatch,
    ) -> list[Trajectory]:
        size = len(keys) // len(prompts)
        share = self.prompts_per_forward or len(prompts)
        trajectories = []
        for start in range(0, len(prompts), share):
            chunk = prompts[start : start + share]
            chunk_keys = keys[start * size : (start + len(chunk)) * size]
            trajectories += self._rollout(model, chunk, chunk_keys, sampler, window, stopwatch)
        return trajectories

    def _rollout(
        self,
        model: UnifiedModel,
        prompts: Sequence[Prompt],
        keys: Sequence[SampleKey],
        sampler: Sampler,
        window: range,
        stopwatch: Stopwatch,
    ) -> list[Trajectory]:
        grid = model.latent_grid(self.canvas.height, self.canvas.width)
        scratch = grid[0] * grid[1] + 2
        rows = torch.arange(len(prompts)).repeat_interleave(len(keys) // len(prompts)).to(model.device)
        with stopwatch.phase("rollout_text"):
            ids = [model.encode_text(prompt.text) for prompt in prompts]
            system = model.encode_text(model.defaults.think_prompt)
            capacity = len(system) + 2 + max(map(len, ids)) + 2
            text_free = self._read_system(model, model.static_context(1, capacity), system)
            main = model.append_text(text_free.select(rows.new_zeros(len(prompts)), room=capacity), ids)
            main = main.select(rows, room=self.max_tokens + 2 + scratch)
            texts: list[TextSegment | None] = [None] * len(keys)
            if self.think:
                numbers = uniform(keys, "text", self.max_tokens)
                main, sampled = model.sample_text(main, numbers, temperature=self.temperature, top_p=self.top_p)
                texts = list(text_segments(model, sampled))
        with stopwatch.phase("rollout_image"):
            contexts = Contexts(main=main, text_free=text_free.select(torch.zeros_like(rows), room=scratch))
            images = draw(model, contexts, keys, self.canvas, sampler, window)
        return [
            Trajectory(prompt=prompts[row], key=key, segments=(image,) if text is None else (text, image))
            for row, key, text, image in zip(rows.tolist(), keys, texts, images, strict=True)
        ]

    def replay(
        self, model: UnifiedModel, trajectories: Sequence[Trajectory], sampler: Sampler, *, context_gradient: bool
    ) -> Replay:
        prompts = list({t.prompt.id: t.prompt for t in trajectories}.values())
        places = {prompt.id: row for row, prompt in enumerate(prompts)}
        rows = torch.tensor([places[t.prompt.id] for t in trajectories], device=model.device)
        text_free = self._read_system(
            model, model.functional_context(1), model.encode_text(model.defaults.think_prompt)
        )
        main = text_free.select(torch.zeros(len(prompts), dtype=torch.long, device=model.device))
        main = model.append_text(main, [model.encode_text(prompt.text) for prompt in prompts]).select(rows)
        text = None
        if self.think:
            main, text = model.text_log_probs(
                main, [t.texts[0].ids_T for t in trajectories], temperature=self.temperature
            )
        contexts = Contexts(main=main, text_free=text_free.select(torch.zeros_like(rows)))
        if not context_gradient:
            contexts = Contexts(main=contexts.main.detach(), text_free=contexts.text_free.detach())
        images = [t.image for t in trajectories]
        steps = replay_steps(model, contexts, images, self.canvas, sampler)
        samples = torch.arange(len(trajectories), device=model.device)
        nothing = torch.zeros(0, 0, device=model.device)
        assert steps.log_prob_R is not None
        return Replay(
            text_log_prob_RT=text.log_prob_RT if text else nothing,
            old_text_log_prob_RT=_padded([t.texts[0].log_prob_T for t in trajectories], model) if text else nothing,
            entropy_RT=text.entropy_RT if text else nothing,
            token_mask_RT=text.mask_RT if text else nothing.bool(),
            text_sample_R=samples if text else samples[:0],
            image_log_prob_RK=steps.log_prob_R,
            old_image_log_prob_RK=_stacked(images, model),
            step_mask_RK=torch.ones_like(steps.log_prob_R, dtype=torch.bool),
            image_sample_R=samples,
            mean_RKLD=steps.mean_RLD,
            std_RK=steps.std_R,
            dt_RK=steps.dt_R,
        )

    def _read_system(self, model: UnifiedModel, context: Context, system_T: Tensor) -> Context:
        """The state before the prompt: the think system prompt, or nothing."""
        return model.append_text(context, [system_T]) if self.think else context


def text_segments(model: UnifiedModel, sampled: SampledText) -> list[TextSegment]:
    """Sampled rows as values of their own, on the CPU."""
    segments = []
    for ids, log_prob, entropy, length, finished in zip(
        sampled.ids_RT.cpu(),
        sampled.log_prob_RT.cpu(),
        sampled.entropy_RT.cpu(),
        sampled.length_R.tolist(),
        sampled.finished_R.tolist(),
        strict=True,
    ):
        segments.append(
            TextSegment(
                ids_T=ids[:length].clone(),
                log_prob_T=log_prob[:length].clone(),
                entropy_T=entropy[:length].clone(),
                finished=finished,
                text=model.decode_text(ids[:length]),
            )
        )
    return segments


def _padded(parts: Sequence[Tensor], model: UnifiedModel) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True).to(model.device)


def _stacked(images: Sequence[ImageSegment], model: UnifiedModel) -> Tensor:
    return torch.stack([image.log_prob_K for image in images]).to(model.device)
