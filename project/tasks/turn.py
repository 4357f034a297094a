"""One turn: read a text (and perhaps a picture), write reasoning, draw. Every task is made of turns.

What is read, and in which order, is said in project/models/reading.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from project.core.metrics import Mean, Metric
from project.core.randomness import uniform
from project.models.alike import Alike, AlikeStates
from project.models.base import UnifiedModel
from project.models.context import Context, Contexts
from project.models.reading import Read, Reading, read
from project.models.text import SampledText, TextLogProbs
from project.samplers.guidance import UNGUIDED
from project.samplers.sampler import Sampler
from project.tasks.base import ChangeGuidance, Rollout
from project.tasks.drawing import Canvas, Origin, alike_states, draw, replay_steps
from project.tasks.parts import ReplayPart, SharedContexts
from project.trajectory import Group, ImageSegment, Prompt, Replay, SampleKey, TextSegment, Trajectory


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one sample of a turn starts from."""

    prompt: Prompt
    key: SampleKey
    text: str
    source: ImageSegment | None = None
    """The picture to look at; all requests of a turn have one, or none has."""

    def origin(self, written: TextSegment | None) -> Origin:
        """What a picture is drawn from, where that text was written: equal ones make equal contexts."""
        read = (self.text, None if self.source is None else id(self.source.pixels_HWC))
        return Origin(main=(*read, None if written is None else tuple(written.ids_T.tolist())), free=read)


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What was read and written before the pictures: `main` has a row per text, `row_N` says which each sample has."""

    known: Read
    main: Context
    row_N: Tensor
    texts: list[TextSegment | None]
    ready: bool = False
    """Whether `main` is what all samples draw from, with room for their pictures: nothing needs to be copied."""

    def contexts(self, places: range, room: int) -> Contexts:
        """What some of the samples draw from, with `room` in each."""
        part = slice(places.start, places.stop)
        main = self.main if self.ready else self.main.select(self.row_N[part], room=room)
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
    def rollout(self, rollout: Rollout, requests: Sequence[Request], round: int = 0) -> list[Trajectory]:
        """One trajectory per request; their keys and the round decide all random numbers."""
        written = self._written(rollout, requests, round, self._room(rollout))
        return self._drawn(rollout, requests, written, range(len(requests)), round)

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
        self, rollout: Rollout, requests: Sequence[Request], written: _Written, places: range, round: int
    ) -> list[Trajectory]:
        """The trajectories of some of the requests."""
        model, room = rollout.model, self._room(rollout)
        keys = [requests[n].key for n in places]
        with rollout.stopwatch.phase("rollout_image"):
            images = draw(
                model,
                written.contexts(places, room),
                keys,
                self.canvas,
                rollout.sampler,
                [rollout.steps(key) for key in keys],
                round=round,
                keep_means=rollout.keep_means,
                origins=[requests[n].origin(written.texts[n]) for n in places],
            )
        trajectories = []
        for n, image in zip(places, images, strict=True):
            request, text = requests[n], written.texts[n]
            segments = (image,) if text is None else (text, image)
            trajectories.append(
                Trajectory(
                    prompt=request.prompt, key=request.key, segments=segments, source=request.source, round=round
                )
            )
        return trajectories

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
        origins = _origins(requests, trajectories)
        contexts, text = self._remember(model, requests, trajectories, origins)
        if not context_gradient:
            contexts = contexts.detach()
        return self._replay(model, trajectories, sampler, contexts, text, slice(None), origins)

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
        origins = _origins(requests, trajectories)
        contexts, text = self._remember(model, requests, trajectories, origins)
        shared = None
        if context_gradient:
            shared = SharedContexts(contexts)
            contexts = shared.leaves
        else:
            contexts = contexts.detach()

        def part(text: TextLogProbs | None, places: slice, shared: SharedContexts | None = None) -> ReplayPart:
            replay = self._replay(model, trajectories, sampler, contexts, text, places, origins)
            return ReplayPart(replay=replace(replay, clean_RLD=None, velocity=None), shared=shared)

        if shared is None and text is not None:
            yield part(text, slice(0))
            text = None
        for start in range(0, len(trajectories[0].image.step_K), steps):
            yield part(None, slice(start, start + steps))
        if shared is not None:
            yield part(text, slice(0), shared)

    def _remember(
        self,
        model: UnifiedModel,
        requests: Sequence[Request],
        trajectories: Sequence[Trajectory],
        origins: Sequence[Origin],
    ) -> tuple[Contexts, TextLogProbs | None]:
        """What the pictures are drawn from, with gradient, and the log-probabilities of the texts, if there are any.

        A text that several samples wrote for one request is read once.
        """
        known = self._read(model, requests, lambda room: model.functional_context(1))
        if not self.think:
            return known.contexts(known.main.select(known.row_N)), None
        ids = [trajectory.texts[0].ids_T for trajectory in trajectories]
        same = Alike.by([origin.main for origin in origins], model.device)
        if same is None:
            main, text = model.text_log_probs(known.main.select(known.row_N), ids, temperature=self.temperature)
            return known.contexts(main), text
        main, text = model.text_log_probs(
            known.main.select(known.row_N[same.first_M]),
            [ids[n] for n in same.first_M.tolist()],
            temperature=self.temperature,
        )
        return known.contexts(main.select(same.kind_R)), text.select(same.kind_R)

    def _replay(
        self,
        model: UnifiedModel,
        trajectories: Sequence[Trajectory],
        sampler: Sampler,
        contexts: Contexts,
        text: TextLogProbs | None,
        part: slice,
        origins: Sequence[Origin],
    ) -> Replay:
        """Texts whose log-probabilities are known, and a part of the trained steps."""
        images = [t.image for t in trajectories]
        grid = model.latent_grid(self.canvas.height, self.canvas.width)

        def velocity(
            x_RKLD: Tensor, sigma_K: Tensor, *, guided: bool = True, alike: AlikeStates | None = None
        ) -> Tensor:
            guidance = self.canvas.guidance if guided else UNGUIDED
            return model.velocity(x_RKLD, sigma_K, contexts, guidance, grid, alike=alike)

        alike = None
        if not part.start and len(images[0].step_K):
            # The first trained state is the last one that no noise of the sample's own has moved.
            keys, first = [t.key for t in trajectories], int(images[0].step_K[0])
            alike = alike_states(keys, self.canvas, origins, [True] * len(keys), first, model.device)
        steps = replay_steps(images, partial(velocity, alike=alike), sampler, model.device, part)
        samples = torch.arange(len(trajectories), device=model.device)
        nothing = torch.zeros(0, 0, device=model.device)
        means = [image.mean_KLD[part] for image in images if image.mean_KLD is not None]
        return Replay(
            text_log_prob_RT=text.log_prob_RT if text else nothing,
            old_text_log_prob_RT=_padded([t.texts[0].log_prob_T for t in trajectories], model) if text else nothing,
            entropy_RT=text.entropy_RT if text else nothing,
            token_mask_RT=text.mask_RT if text else nothing.bool(),
            text_sample_R=samples if text else samples[:0],
            image_log_prob_RK=steps.log_prob_R,
            old_image_log_prob_RK=torch.stack([image.log_prob_K[part] for image in images]).to(model.device),
            step_mask_RK=torch.ones_like(steps.log_prob_R, dtype=torch.bool),
            image_sample_R=samples,
            mean_RKLD=steps.mean_RLD,
            velocity_RKLD=steps.velocity_RLD,
            std_RK=steps.std_R,
            dt_RK=steps.dt_R,
            old_mean_RKLD=torch.stack(means).to(model.device) if means else None,
            clean_RLD=torch.stack([image.final_LD for image in images]).to(model.device),
            velocity=velocity,
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


def _origins(requests: Sequence[Request], trajectories: Sequence[Trajectory]) -> list[Origin]:
    return [
        request.origin(trajectory.texts[0] if trajectory.texts else None)
        for request, trajectory in zip(requests, trajectories, strict=True)
    ]


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


def _padded(parts: Sequence[Tensor], model: UnifiedModel) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True).to(model.device)
