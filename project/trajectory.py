"""The values that travel between the stages of one update.

`rollout` makes trajectories, `score` adds scores, `advantages` adds advantages; every stage returns a new
value and none changes an old one.

Shape suffixes used in the whole project:
    P prompts, G samples of a group, N = P * G samples, B samples of a micro-batch, R rows of a forward,
    K trained denoising steps, T text tokens, L latent tokens, D values of a latent token,
    Q questions, S slots of a context, V words of the vocabulary, H hidden size
Sample `n` belongs to prompt `n // G`: a group is contiguous.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from project.core.digest import digest, image_digest
from project.core.metrics import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One atomic yes/no question of DVReward, phrased so that "yes" is good."""

    text: str
    kind: Literal["semantic", "quality"] = "semantic"
    tag: str = ""
    depends_on: tuple[int, ...] = ()
    """Positions (in the prompt's list) of the questions that must hold for this one to make sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One row of a prompt dataset."""

    id: str
    text: str
    questions: tuple[Question, ...] = ()
    image: str | None = None
    """Path of a source image, for editing tasks."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Every other column of the row, untouched (for reward functions and benchmarks)."""
    benchmark: str | None = None
    """Name of the benchmark that alone measures this prompt; None = every benchmark does."""
    padding: bool = False
    """It only fills up a batch of an evaluation, and is measured by nobody."""
    place: str = field(default="", compare=False)
    """Where the row stands, "file:line", for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKey:
    """Names one sample of a run; all its randomness is a hash of this, never of a rank or a batch position."""

    seed: int
    update: int
    prompt: str
    occurrence: int = 0
    """How often the prompt was already drawn in this update."""
    sample: int = 0
    """Position in the group."""


def sample_keys(prompts: Sequence[Prompt], size: int, *, seed: int, update: int) -> list[SampleKey]:
    """The keys of all samples of an update, prompt by prompt, `size` of each."""
    seen: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        keys += [
            SampleKey(seed=seed, update=update, prompt=prompt.id, occurrence=seen[prompt.id], sample=g)
            for g in range(size)
        ]
        seen[prompt.id] += 1
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSegment:
    """Text the policy wrote: the ids sampled are the ids trained on.

    `ids_T` holds the tokens after the fresh start token; the last one is the end token if the policy ended by
    itself (`finished`). A forced end token is part of the context but not of `ids_T`, so it is never trained.
    `log_prob_T` and `entropy_T` [nats] come from the sampler: of the full softmax after temperature.
    """

    ids_T: Tensor
    log_prob_T: Tensor
    entropy_T: Tensor
    finished: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSegment:
    """An image the policy drew; the K stochastic transitions of the SDE window are what is trained.

    `latents_KLD[k] -> next_KLD[k]` is the transition of evaluation `step_K[k]`, taken with the mean
    log-probability `log_prob_K[k]` (fp32, from the sampler). K = 0 for images drawn by ODE.
    """

    latents_KLD: Tensor
    next_KLD: Tensor
    step_K: Tensor
    log_prob_K: Tensor
    final_LD: Tensor
    """The clean latents that the picture was decoded from."""
    pixels_HWC: Tensor
    """uint8 [height, width, 3]."""
    mean_KLD: Tensor | None = None
    """Means of the transitions under the weights of the rollout, kept where the objective asks for them."""


Segment = TextSegment | ImageSegment


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One sample: what was read (prompt and perhaps a picture), then what was generated, in that order.

    A round of refinement is a trajectory of its own, whose `source` is the picture of the round before.
    """

    prompt: Prompt
    key: SampleKey
    segments: tuple[Segment, ...]
    """Empty for a sample that had stopped before this round."""
    source: ImageSegment | None = None
    """The picture that was looked at: to refine, or to edit."""
    round: int = 0
    """Of refinement, from 1; 0 for whatever is no refinement."""

    @property
    def stopped(self) -> bool:
        """Whether the sample had stopped before this round: nothing was decided in it."""
        return not self.segments

    @property
    def kept(self) -> bool:
        """Whether it wrote a text and drew nothing: the picture that it looked at stays."""
        return bool(self.texts) and not self.images

    @property
    def texts(self) -> tuple[TextSegment, ...]:
        return tuple(s for s in self.segments if isinstance(s, TextSegment))

    @property
    def images(self) -> tuple[ImageSegment, ...]:
        return tuple(s for s in self.segments if isinstance(s, ImageSegment))

    @property
    def image(self) -> ImageSegment:
        """The image that is judged: the last one, or the source where none was drawn. Raises ValueError without."""
        image = self.images[-1] if self.images else self.source
        if image is None:
            raise ValueError(f"the trajectory of prompt {self.prompt.id!r} holds no image")
        return image

    @property
    def reasoning(self) -> str:
        return "\n".join(segment.text for segment in self.texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What the reward callbacks said of the N samples of an update.

    `reward_N` and `text_reward_N` are NaN where a sample could not be scored: such a sample leaves its group's
    mean, std, loss and denominators. `text_reward_N` is added for the text objective only (format rewards).
    """

    reward_N: Tensor
    text_reward_N: Tensor
    confidence_NQ: tuple[tuple[float | None, ...], ...] = ()
    """Per sample and question of its prompt; None = unanswered. Empty if no reward asks questions."""
    well_formed_N: Tensor | None = None
    """bool: samples whose text is as the rewards with `mask_image` want it; None if there is no such reward."""
    compared_N: Tensor | None = None
    """What advantages are made of in place of `reward_N`: rewards that were normalised within their groups first."""
    text_compared_N: Tensor | None = None
    """The same in place of `text_reward_N`."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """To log, by name: of all samples of the update, also those of other ranks."""

    @property
    def to_compare(self) -> tuple[Tensor, Tensor]:
        """What advantages are made of: `reward_N` and `text_reward_N`, or what stands in their places."""
        if self.compared_N is None or self.text_compared_N is None:
            return self.reward_N, self.text_reward_N
        return self.compared_N, self.text_compared_N

    def of(self, places: range) -> Scores:
        """Those of some samples; the metrics stay."""
        part = slice(places.start, places.stop)
        return dataclasses.replace(
            self,
            reward_N=self.reward_N[part],
            text_reward_N=self.text_reward_N[part],
            confidence_NQ=self.confidence_NQ[part],
            well_formed_N=None if self.well_formed_N is None else self.well_formed_N[part],
            compared_N=None if self.compared_N is None else self.compared_N[part],
            text_compared_N=None if self.text_compared_N is None else self.text_compared_N[part],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantages:
    """Group-relative advantages; 0 where `valid_N` is false."""

    image_N: Tensor
    text_N: Tensor
    valid_N: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of all samples of the update."""

    def of(self, places: range) -> Advantages:
        """Those of some samples; the metrics stay."""
        part = slice(places.start, places.stop)
        return dataclasses.replace(
            self, image_N=self.image_N[part], text_N=self.text_N[part], valid_N=self.valid_N[part]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Samples of P prompts, G of each, prompt by prompt: what one task made in an update, in one round.

    On several ranks each has a part of them, which may begin and end within the G samples of a prompt.
    """

    trajectories: tuple[Trajectory, ...]
    size: int
    """G."""
    task: str = "draw"
    """Groups of one task share the denominators of their loss."""
    round: int = 0
    """Of refinement, from 1; 0 for whatever is no refinement."""
    log_prefix: str = ""
    """Of the names of what is logged of the group."""
    label: str | None = None
    """What an evaluation arrives at from its first pictures: `round1`, `best2` ...; None = the first pictures."""
    text_weight: float = 1.0
    """Of the text loss, on top of the objective's own."""
    pending: tuple[Future[Any], ...] = ()
    """What the rewards say, on its way: of some of the samples each, in order. `Scorer.collect` waits for it."""
    before_N: Tensor | None = None
    """Rewards of the pictures that the first round refines; NaN = unjudged."""
    spare: tuple[Trajectory, ...] = ()
    """What an idle micro-batch replays; the first trajectory if empty."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Of what was made or computed last, to log, by name."""
    greedy: Group | None = None
    """One more sample of each prompt, drawn greedily, that rewards are compared with; its size is 1."""
    scores: Scores | None = None
    advantages: Advantages | None = None

    def __len__(self) -> int:
        return len(self.trajectories)

    @property
    def context_N(self) -> Tensor:
        """int64, equal for samples of one prompt whose pictures were drawn from the same text and source picture.

        A sample that drew nothing has a number of its own. A digest, so that samples of other ranks can be told to have
        the same.
        """
        return torch.tensor([_context(t) for t in self.trajectories], dtype=torch.long)

    @property
    def parts(self) -> list[range]:
        """Places of the samples of each prompt: G, or fewer where other ranks have the others."""
        found: list[range] = []
        for _, some in groupby(self.trajectories, lambda t: (t.prompt.id, t.key.occurrence)):
            start = found[-1].stop if found else 0
            found.append(range(start, start + len(list(some))))
        return found

    @property
    def teaches(self) -> bool:
        """Whether a sample has an advantage other than zero."""
        return self.advantages is not None and bool(self.advantages.image_N.any() or self.advantages.text_N.any())

    def micro_batches(self, size: int, at_least: int = 0) -> Iterator[MicroBatch]:
        """Surviving samples in order, at most `size` at a time; then idle ones until there are `at_least`.

        Samples of one micro-batch have the same trained steps, because they are replayed at the same flow times.
        Raises ValueError before `advantages` ran.
        """
        if self.advantages is None:
            raise ValueError("micro_batches needs advantages: call `advantages` on the scored group first")
        survivors: Sequence[int] = torch.nonzero(self.advantages.valid_N).flatten().tolist()
        alike = self._alike(survivors)
        parts = [some[start : start + size] for some in alike for start in range(0, len(some), size)]
        for chosen in parts:
            yield MicroBatch(
                trajectories=tuple(self.trajectories[n] for n in chosen),
                image_advantage_B=self.advantages.image_N[chosen],
                text_advantage_B=self.advantages.text_N[chosen],
                text_weight=self.text_weight,
            )
        for _ in range(len(parts), at_least):
            nothing = torch.zeros(1)
            yield MicroBatch(
                trajectories=(self.spare or self.trajectories)[:1],
                image_advantage_B=nothing,
                text_advantage_B=nothing,
                weight=0.0,
            )

    def _alike(self, samples: Sequence[int]) -> list[list[int]]:
        """Samples in order, cut where the trained steps change. One that drew nothing goes with any."""
        found: list[list[int]] = []
        before: list[list[int]] = []
        for n in samples:
            steps = [image.step_K.tolist() for image in self.trajectories[n].images]
            if not found or (steps and before and steps != before):
                found.append([])
            found[-1].append(n)
            before = steps or before
        return found


def _context(trajectory: Trajectory) -> int:
    """A 64-bit digest of what a picture was drawn from."""
    source = b"" if trajectory.source is None else image_digest(trajectory.source.pixels_HWC.numpy())
    texts = [repr(text.ids_T.tolist()).encode() for text in trajectory.texts]
    alone = b"" if trajectory.images else repr(trajectory.key).encode()
    return int.from_bytes(digest(trajectory.prompt.id.encode(), source, *texts, alone)[:8], "big", signed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Whole samples whose loss is taken in one backward."""

    trajectories: tuple[Trajectory, ...]
    image_advantage_B: Tensor
    text_advantage_B: Tensor
    text_weight: float = 1.0
    weight: float = 1.0
    """Of its loss: 0 = idle, replayed only because another rank has more to replay."""

    def __len__(self) -> int:
        return len(self.trajectories)


class Velocity(Protocol):
    """(states [R, K, L, D], flow times [K]) -> velocities [R, K, L, D], each row in the context of its own image."""

    def __call__(self, x_RKLD: Tensor, sigma_K: Tensor, *, guided: bool = True) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Log-probabilities of a micro-batch under the weights now (with gradient), beside those of the sampler.

    Text is padded to the longest; `token_mask_BT` marks trained tokens. With several text segments a sample has
    several rows (`text_sample_R` maps a row to its sample in the micro-batch), and likewise for images: row r
    holds the K trained steps of one image segment of sample `image_sample_R[r]`.
    """

    text_log_prob_RT: Tensor
    old_text_log_prob_RT: Tensor
    entropy_RT: Tensor
    token_mask_RT: Tensor
    text_sample_R: Tensor
    image_log_prob_RK: Tensor
    old_image_log_prob_RK: Tensor
    step_mask_RK: Tensor
    image_sample_R: Tensor
    mean_RKLD: Tensor
    """Means of the trained transitions."""
    std_RK: Tensor
    """Their full standard deviations, the same in rollout and replay."""
    dt_RK: Tensor
    old_mean_RKLD: Tensor | None = None
    """Means under the weights of the rollout, if the objective needs them."""
    velocity_RKLD: Tensor | None = None
    """Velocities of the trained transitions, as they were used: with guidance."""
    clean_RLD: Tensor | None = None
    """Clean latents of the images, of which a forward-process loss makes states at any flow time."""
    velocity: Velocity | None = None
    """Velocity of any states of these images under the weights now, for a forward-process loss."""
    old_velocity: Velocity | None = None
    """The same under the weights of the rollout, without gradient, where they are other ones and it is needed."""
    reference: Replay | None = None
    """The same of the reference policy, without gradient, if the objective needs it."""
