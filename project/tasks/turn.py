"""One turn: read a text (and perhaps a picture), write reasoning, draw. Every task is made of turns.

What is read comes in this order: the think system prompt, the picture through the autoencoder, the picture through
the vision encoder, the text. Guidance compares with the state before the text (`text_free`) and, where image
guidance is on, with the texts alone (`image_free`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from project.core.randomness import uniform
from project.core.timing import Stopwatch
from project.models.base import UnifiedModel
from project.models.context import Context, Contexts
from project.models.text import SampledText
from project.models.transforms import normalise
from project.rewards.scoring import Score
from project.samplers.base import Sampler
from project.tasks.drawing import Canvas, draw, replay_steps
from project.trajectory import Group, ImageSegment, Prompt, Replay, SampleKey, TextSegment, Trajectory


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one sample of a turn starts from."""

    prompt: Prompt
    key: SampleKey
    text: str
    source: ImageSegment | None = None
    """The picture to look at; all requests of a turn have one, or none has."""


@dataclass(frozen=True, kw_only=True)
class _Read:
    """Contexts, one row per different thing that was read; `rows_N` and `base_N` are the samples' rows."""

    main: Context
    text_free: Context
    image_free: Context | None
    rows_N: Tensor
    base_N: Tensor


@dataclass(frozen=True, kw_only=True)
class Turn:
    """How a turn is made.

    Attributes:
        think: write reasoning before drawing.
        max_tokens: most reasoning tokens (a longer text is cut off, its forced end is not trained).
        temperature: of the reasoning; 0 = greedy (evaluation only).
        top_p: share of the probability that reasoning tokens are drawn from.
        images_per_text: samples of a group that share each text: they differ in their pictures alone.
    """

    canvas: Canvas
    think: bool = True
    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 0.8
    images_per_text: int = 1

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens}: reasoning needs at least one token (or think=False)")
        if not self.temperature >= 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature={self.temperature}, top_p={self.top_p}: give a temperature from 0 (greedy) and a share "
                "of the probability above 0 and up to 1"
            )
        if self.images_per_text < 1:
            raise ValueError(f"images_per_text={self.images_per_text}: give at least 1")

    @torch.no_grad()
    def rollout(
        self,
        model: UnifiedModel,
        requests: Sequence[Request],
        sampler: Sampler,
        window: range,
        stopwatch: Stopwatch,
        round: int = 0,
    ) -> list[Trajectory]:
        """One trajectory per request; all randomness is that of their keys and the round."""
        grid = model.latent_grid(self.canvas.height, self.canvas.width)
        scratch = grid[0] * grid[1] + 2
        keys = [request.key for request in requests]
        with stopwatch.phase("rollout_text"):
            read = self._read(model, requests, lambda room: model.static_context(1, room))
            texts: list[TextSegment | None] = [None] * len(requests)
            if self.think:
                writers, text_N = self._writers(keys)
                main = read.main.select(read.rows_N[writers], room=self.max_tokens + 2 + scratch)
                numbers = uniform([keys[n] for n in writers], "text", self.max_tokens, round=round)
                main, sampled = model.sample_text(main, numbers, temperature=self.temperature, top_p=self.top_p)
                written = text_segments(model, sampled)
                texts = [written[row] for row in text_N]
                if len(writers) < len(keys):
                    main = main.select(torch.tensor(text_N, device=model.device), room=scratch)
            else:
                main = read.main.select(read.rows_N, room=scratch)
        with stopwatch.phase("rollout_image"):
            contexts = Contexts(
                main=main,
                text_free=read.text_free.select(read.base_N, room=scratch),
                image_free=None if read.image_free is None else read.image_free.select(read.rows_N, room=scratch),
            )
            images = draw(model, contexts, keys, self.canvas, sampler, window, round=round)
        return [
            Trajectory(
                prompt=request.prompt,
                key=request.key,
                segments=(image,) if text is None else (text, image),
                source=request.source,
                round=round,
            )
            for request, text, image in zip(requests, texts, images, strict=True)
        ]

    def rollout_groups(
        self,
        model: UnifiedModel,
        requests: Sequence[Request],
        size: int,
        sampler: Sampler,
        window: range,
        stopwatch: Stopwatch,
        score: Score | None = None,
        together: int | None = None,
    ) -> Group:
        """Groups of `size`, `together` groups at a time, each share scored as soon as it is drawn.

        Args:
            score: asked for the scores of every share; nothing is scored if None.
            together: groups that are drawn at once; all if None.
        """
        trajectories: list[Trajectory] = []
        pending = []
        share = len(requests) if together is None else together * size
        for start in range(0, len(requests), share):
            drawn = self.rollout(model, requests[start : start + share], sampler, window, stopwatch)
            trajectories += drawn
            if score is not None:
                pending.append(score(drawn, size))
        return Group(
            trajectories=tuple(trajectories), size=size, pending=tuple(pending), metrics=text_metrics(trajectories)
        )

    def replay(
        self,
        model: UnifiedModel,
        requests: Sequence[Request],
        trajectories: Sequence[Trajectory],
        sampler: Sampler,
        *,
        context_gradient: bool,
    ) -> Replay:
        """Log-probabilities of what was generated for the requests, under the weights now."""
        read = self._read(model, requests, lambda room: model.functional_context(1))
        main = read.main.select(read.rows_N)
        text = None
        if self.think:
            main, text = model.text_log_probs(
                main, [t.texts[0].ids_T for t in trajectories], temperature=self.temperature
            )
        contexts = Contexts(
            main=main,
            text_free=read.text_free.select(read.base_N),
            image_free=None if read.image_free is None else read.image_free.select(read.rows_N),
        )
        if not context_gradient:
            contexts = contexts.detach()
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
            old_image_log_prob_RK=torch.stack([image.log_prob_K for image in images]).to(model.device),
            step_mask_RK=torch.ones_like(steps.log_prob_R, dtype=torch.bool),
            image_sample_R=samples,
            mean_RKLD=steps.mean_RLD,
            std_RK=steps.std_R,
            dt_RK=steps.dt_R,
        )

    def _writers(self, keys: Sequence[SampleKey]) -> tuple[list[int], list[int]]:
        """Positions of the samples that write a text, and for every sample the number of the text that is its own."""
        texts: dict[SampleKey, int] = {}
        writers: list[int] = []
        text_N = []
        for n, key in enumerate(keys):
            shared = replace(key, sample=key.sample // self.images_per_text)
            if shared not in texts:
                texts[shared] = len(writers)
                writers.append(n)
            text_N.append(texts[shared])
        return writers, text_N

    def _read(self, model: UnifiedModel, requests: Sequence[Request], empty: Callable[[int], Context]) -> _Read:
        """Everything before the reasoning; what several samples read is read once.

        Args:
            empty: makes an empty context of one row with the given room.
        """
        pictures = list({id(r.source): r.source for r in requests if r.source is not None}.values())
        if pictures and any(r.source is None for r in requests):
            raise ValueError("requests with and without a picture cannot be read together")
        picture_row = {id(picture): row for row, picture in enumerate(pictures)}
        units = list({(r.text, id(r.source)): r for r in requests}.values())
        unit_row = {(r.text, id(r.source)): row for row, r in enumerate(units)}
        ids = [model.encode_text(unit.text) for unit in units]
        room = max(map(len, ids)) + 2

        def base_rows(some: Sequence[Request]) -> Tensor:
            return torch.tensor([picture_row.get(id(r.source), 0) for r in some], device=model.device)

        system = model.encode_text(model.defaults.think_prompt)
        before = empty(len(system) + 2 + room)
        if self.think:
            before = model.append_text(before, [system])
        base = before
        if pictures:
            base = self._look(model, before, pictures)
        main = model.append_text(base.select(base_rows(units), room=room), ids)
        image_free = None
        if pictures and self.canvas.guidance.image > 1:
            image_free = model.append_text(before.select(torch.zeros_like(base_rows(units)), room=room), ids)
        return _Read(
            main=main,
            text_free=base,
            image_free=image_free,
            rows_N=torch.tensor([unit_row[r.text, id(r.source)] for r in requests], device=model.device),
            base_N=base_rows(requests),
        )

    def _look(self, model: UnifiedModel, context: Context, pictures: Sequence[ImageSegment]) -> Context:
        """A row per picture, read through the autoencoder and then through the vision encoder."""
        _, transform = model.picture_transforms
        seen = [transform(Image.fromarray(picture.pixels_HWC.numpy())) for picture in pictures]
        room = max(model.picture_room(*pixels.shape[-2:]) for pixels in seen)
        grid = model.latent_grid(self.canvas.height, self.canvas.width)
        with torch.no_grad():
            pixels = normalise(torch.stack([picture.pixels_HWC for picture in pictures])).to(model.device)
            clean = model.encode_image(pixels)
        rows = torch.zeros(len(pictures), dtype=torch.long, device=model.device)
        context = context.select(rows, room=room + model.latent_room(grid))
        return model.append_picture(model.append_latents(context, clean, grid), seen)


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


def text_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Shares of texts that the token limit cut off, and that say nothing."""
    texts = [text for trajectory in trajectories for text in trajectory.texts]
    number = max(len(texts), 1)
    return {
        "text/cut_off": sum(not text.finished for text in texts) / number,
        "text/empty": sum(not text.text for text in texts) / number,
    }


def _padded(parts: Sequence[Tensor], model: UnifiedModel) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True).to(model.device)
