"""One turn: read a text (and perhaps a picture), write reasoning, draw. Every task is made of turns.

What is read, and in which order, is said in project/models/reading.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from project.core.metrics import Mean, Metric
from project.core.randomness import uniform
from project.models.base import UnifiedModel
from project.models.context import Context, Contexts
from project.models.reading import Read, Reading, read
from project.models.text import SampledText, TextLogProbs
from project.samplers.sampler import Sampler
from project.tasks.base import ChangeGuidance, Rollout
from project.tasks.drawing import Canvas, draw
from project.tasks.parts import ReplayPart, SharedContexts
from project.tasks.remembering import Remembered, remember, replayed
from project.tasks.request import Request
from project.trajectory import Group, Replay, SampleKey, TextSegment, Trajectory


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What was read and written before the pictures: `main` has a row per text, `row_N` says which each sample has."""

    known: Read
    main: Context
    row_N: Tensor
    texts: list[TextSegment | None]
    ready: bool = False
    """Whether `main` is what all samples draw from, with room for their pictures: nothing needs to be copied."""

    def contexts(self, places: Sequence[int], room: int) -> Contexts:
        """What some of the samples draw from, with `room` in each."""
        part = list(places)
        whole = self.ready and len(part) == self.main.rows
        main = self.main if whole else self.main.select(self.row_N[part], room=room)
        return self.known.contexts(main, room=room, part=part)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Settings of a turn, and how it is rolled out and replayed.

    Attributes:
        think: write reasoning before drawing.
        max_tokens: most reasoning tokens. A longer text is cut off; its forced end is not trained.
        temperature: temperature of the reasoning; 0 = greedy (evaluation only).
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

    def with_guidance(self, change: ChangeGuidance) -> Turn:
        """The same turn with other guidance."""
        return replace(self, canvas=replace(self.canvas, guidance=change(self.canvas.guidance)))

    def greedy(self) -> Turn:
        """The same turn with the most probable tokens; each text has one picture."""
        return replace(self, temperature=0.0, images_per_text=1)

    @torch.no_grad()
    def rollout(
        self,
        rollout: Rollout,
        requests: Sequence[Request],
        round: int = 0,
        done: Callable[[Trajectory], bool] | None = None,
    ) -> list[Trajectory]:
        """One trajectory per request; their keys and the round decide all random numbers.

        Args:
            done: whether a trajectory that has its text needs no picture; None = all are drawn.
        """
        written = self._written(rollout, requests, round, self._room(rollout))
        return self._drawn(rollout, requests, written, range(len(requests)), round, done)

    def rollout_group(
        self, rollout: Rollout, requests: Sequence[Request], together: int | None = None, texts: int | None = None
    ) -> Group:
        """Draws `together` * G samples at a time (all if None), and has each part scored as soon as it is drawn.

        Args:
            requests: of this rank's samples, in order.
            texts: so many times G samples write their texts together, before any of them is drawn; if None, all.
                It is never less than `together`.
        """
        trajectories: list[Trajectory] = []
        pending = []
        share = max(len(requests), 1) if together is None else together * rollout.size
        writing = max(share, len(requests) if texts is None else texts * rollout.size)
        for first in range(0, len(requests), writing):
            some = requests[first : first + writing]
            # Where texts wait for their turn to be drawn, only what is drawn has room for pictures.
            written = self._written(rollout, some, 0, self._room(rollout) if len(some) <= share else 0)
            for start in range(0, len(some), share):
                drawn = self._drawn(rollout, some, written, range(len(some))[start : start + share], 0)
                trajectories += drawn
                if rollout.score is not None:
                    pending.append(rollout.score(drawn))
        return Group(
            trajectories=tuple(trajectories),
            size=rollout.size,
            pending=tuple(pending),
            metrics=text_metrics(trajectories),
        )

    @torch.no_grad()
    def _written(self, rollout: Rollout, requests: Sequence[Request], round: int, room: int) -> _Written:
        """Everything up to the pictures; with `room` for them if all are drawn together, else 0."""
        model = rollout.model
        keys = [request.key for request in requests]
        with rollout.stopwatch.phase("rollout_text"):
            known = self._read(model, requests, lambda room: model.static_context(1, room))
            if not self.think:
                return _Written(known=known, main=known.main, row_N=known.row_N, texts=[None] * len(requests))
            writers, text_N = self._writers(keys)
            main = known.main.select(known.row_N[writers], room=model.text_room(self.max_tokens) + room)
            numbers = uniform([keys[n] for n in writers], "text", self.max_tokens, round=round)
            main, sampled = model.sample_text(main, numbers, temperature=self.temperature, top_p=self.top_p)
            segments = text_segments(model, sampled)
            return _Written(
                known=known,
                main=main,
                row_N=torch.tensor(text_N, device=model.device),
                texts=[segments[row] for row in text_N],
                ready=bool(room) and len(writers) == len(keys),
            )

    def _room(self, rollout: Rollout) -> int:
        """Of a picture, in the context that it is drawn from."""
        return rollout.model.latent_room(rollout.model.latent_grid(self.canvas.height, self.canvas.width))

    @torch.no_grad()
    def _drawn(
        self,
        rollout: Rollout,
        requests: Sequence[Request],
        written: _Written,
        places: range,
        round: int,
        done: Callable[[Trajectory], bool] | None = None,
    ) -> list[Trajectory]:
        """The trajectories of some of the requests."""
        model, room = rollout.model, self._room(rollout)
        made = {n: _begun(requests[n], written.texts[n], round) for n in places}
        drawing = [n for n, trajectory in made.items() if done is None or not done(trajectory)]
        if not drawing:
            return list(made.values())
        keys = [requests[n].key for n in drawing]
        with rollout.stopwatch.phase("rollout_image"):
            images = draw(
                model,
                written.contexts(drawing, room),
                keys,
                self.canvas,
                rollout.sampler,
                [rollout.steps(key) for key in keys],
                round=round,
                keep_means=rollout.keep_means,
                origins=[requests[n].origin(written.texts[n]) for n in drawing],
            )
        for n, image in zip(drawing, images, strict=True):
            made[n] = replace(made[n], segments=(*made[n].segments, image))
        return list(made.values())

    def replay(
        self,
        model: UnifiedModel,
        requests: Sequence[Request],
        trajectories: Sequence[Trajectory],
        sampler: Sampler,
        *,
        context_gradient: bool,
    ) -> Replay:
        """Log-probabilities of what was generated for the requests, under the present weights."""
        known = self._remember(model, requests, trajectories, sampler)
        if not context_gradient:
            known = replace(known, contexts=known.contexts.detach())
        return replayed(model, trajectories, known, self.canvas, sampler)

    def replay_parts(
        self,
        model: UnifiedModel,
        requests: Sequence[Request],
        trajectories: Sequence[Trajectory],
        sampler: Sampler,
        *,
        context_gradient: bool,
        steps: int,
    ) -> Iterator[ReplayPart]:
        """The same in parts: the texts, and `steps` trained steps at a time. The contexts are computed once.

        The caller makes the backward pass of a part before it asks for the next. Without `context_gradient` the texts
        come first, and their activations go before the pictures' are made. With it they come last, because the
        gradient of the pictures flows through them.
        """
        known = self._remember(model, requests, trajectories, sampler)
        text, shared = known.text, None
        if context_gradient:
            shared = SharedContexts(known.contexts)
        known = replace(known, contexts=shared.leaves if shared else known.contexts.detach(), text=None)

        def part(text: TextLogProbs | None, places: slice, shared: SharedContexts | None = None) -> ReplayPart:
            replay = replayed(model, trajectories, replace(known, text=text), self.canvas, sampler, places)
            return ReplayPart(replay=replace(replay, clean_RLD=None, velocity=None), shared=shared)

        if shared is None and text is not None:
            yield part(text, slice(0))
            text = None
        for start in range(0, len(known.images[0].step_K), steps):
            yield part(None, slice(start, start + steps))
        if shared is not None:
            yield part(text, slice(0), shared)

    def _remember(
        self, model: UnifiedModel, requests: Sequence[Request], trajectories: Sequence[Trajectory], sampler: Sampler
    ) -> Remembered:
        """What is replayed, with gradient."""
        return remember(
            model,
            self._read(model, requests, lambda room: model.functional_context(1)),
            requests,
            trajectories,
            self.canvas,
            sampler,
            temperature=self.temperature if self.think else None,
        )

    def _writers(self, keys: Sequence[SampleKey]) -> tuple[list[int], list[int]]:
        """Positions of the samples that write a text, and the number of the text that each sample uses."""
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

    def _read(self, model: UnifiedModel, requests: Sequence[Request], empty: Callable[[int], Context]) -> Read:
        """Everything before the reasoning."""
        return read(
            model,
            [Reading(text=r.text, picture=None if r.source is None else r.source.pixels_HWC) for r in requests],
            empty,
            system=model.defaults.think_prompt if self.think else "",
            image_free=self.canvas.guidance.image > 1,
        )


def _begun(request: Request, text: TextSegment | None, round: int) -> Trajectory:
    """A trajectory that has its text, and no picture yet."""
    segments = () if text is None else (text,)
    return Trajectory(prompt=request.prompt, key=request.key, segments=segments, source=request.source, round=round)


def text_segments(model: UnifiedModel, sampled: SampledText) -> list[TextSegment]:
    """One text segment for each sampled row, on the CPU."""
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


def text_metrics(trajectories: Sequence[Trajectory]) -> dict[str, Metric]:
    """Share of the texts that the token limit cut off, share of the empty ones, and mean number of tokens."""
    texts = [text for trajectory in trajectories for text in trajectory.texts]
    return {
        "text/cut_off": Mean.over(not text.finished for text in texts),
        "text/empty": Mean.over(not text.text for text in texts),
        "text/tokens": Mean.over(len(text.ids_T) for text in texts),
    }
