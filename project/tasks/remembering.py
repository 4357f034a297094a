"""What a turn is replayed from, and its replay: log-probabilities of what was generated, under the present weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from project.models.alike import Alike, AlikeStates
from project.models.base import UnifiedModel
from project.models.context import Contexts
from project.models.reading import Read
from project.models.text import TextLogProbs
from project.samplers.guidance import UNGUIDED
from project.samplers.sampler import Sampler
from project.tasks.drawing import Canvas, alike_states, replay_steps, stand_in
from project.tasks.request import Request
from project.trajectory import ImageSegment, Replay, Trajectory


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What a micro-batch is replayed from: the contexts of its pictures, and the log-probabilities of its texts.

    Attributes:
        images: the pictures, a row of the contexts each. Where no sample drew one, a picture stands in, so that all
            ranks make the same forwards; nothing of it is in the replay.
        image_sample_R: the sample of each picture; none for one that stands in.
        alike: pictures whose first trained states are equal; None = all differ.
    """

    contexts: Contexts
    text: TextLogProbs | None
    images: list[ImageSegment]
    image_sample_R: Tensor
    alike: AlikeStates | None


def remember(
    model: UnifiedModel,
    read: Read,
    requests: Sequence[Request],
    trajectories: Sequence[Trajectory],
    canvas: Canvas,
    sampler: Sampler,
    temperature: float | None,
) -> Remembered:
    """Replays the texts on what was read, with gradient. A text that several samples of a request wrote is read once.

    Args:
        temperature: of the texts; None = there are none.
    """
    origins = [
        request.origin(trajectory.texts[0] if trajectory.texts else None)
        for request, trajectory in zip(requests, trajectories, strict=True)
    ]
    row_N, main, text = read.row_N, read.main, None
    if temperature is not None:
        ids = [trajectory.texts[0].ids_T for trajectory in trajectories]
        same = Alike.by([origin.main for origin in origins], model.device)
        if same is None:
            main, text = model.text_log_probs(main.select(row_N), ids, temperature=temperature)
            row_N = torch.arange(len(ids), device=model.device)
        else:
            written = [ids[n] for n in same.first_M.tolist()]
            main, text = model.text_log_probs(main.select(row_N[same.first_M]), written, temperature=temperature)
            row_N, text = same.kind_R, text.select(same.kind_R)
    drew = [n for n, trajectory in enumerate(trajectories) if trajectory.images]
    rows = drew or [0]
    images = [trajectories[n].image for n in drew]
    alike = None
    if not images:
        height, width = model.latent_grid(canvas.height, canvas.width)
        images = [stand_in(sampler.steps(trajectories[0].key), height * width, model.latent_size)]
    elif len(images[0].step_K):
        # The first trained state is the last one that no noise of the sample's own has moved.
        keys, first = [trajectories[n].key for n in drew], int(images[0].step_K[0])
        alike = alike_states(keys, canvas, [origins[n] for n in drew], [True] * len(drew), first, model.device)
    return Remembered(
        contexts=read.contexts(main.select(row_N[rows]), part=rows),
        text=text,
        images=images,
        image_sample_R=torch.tensor(drew, dtype=torch.long, device=model.device),
        alike=alike,
    )


def replayed(
    model: UnifiedModel,
    trajectories: Sequence[Trajectory],
    known: Remembered,
    canvas: Canvas,
    sampler: Sampler,
    part: slice = slice(None),
) -> Replay:
    """The texts, if their log-probabilities are known, and a part of the trained steps."""
    text, images = known.text, known.images
    grid = model.latent_grid(canvas.height, canvas.width)

    def velocity(x_RKLD: Tensor, sigma_K: Tensor, *, guided: bool = True, alike: AlikeStates | None = None) -> Tensor:
        # Without a picture a state of zeros stands in: the forward is made, and nothing of it is left.
        some_RKLD = x_RKLD if len(x_RKLD) else x_RKLD.new_zeros(1, *x_RKLD.shape[1:])
        guidance = canvas.guidance if guided else UNGUIDED
        return model.velocity(some_RKLD, sigma_K, known.contexts, guidance, grid, alike=alike)[: len(x_RKLD)]

    alike = None if part.start else known.alike
    steps = replay_steps(images, partial(velocity, alike=alike), sampler, model.device, part)
    drawn = slice(len(known.image_sample_R))
    samples = torch.arange(len(trajectories), device=model.device)
    nothing = torch.zeros(0, 0, device=model.device)
    means = [image.mean_KLD[part] for image in images if image.mean_KLD is not None]
    return Replay(
        text_log_prob_RT=text.log_prob_RT if text else nothing,
        old_text_log_prob_RT=_padded([t.texts[0].log_prob_T for t in trajectories], model) if text else nothing,
        entropy_RT=text.entropy_RT if text else nothing,
        token_mask_RT=text.mask_RT if text else nothing.bool(),
        text_sample_R=samples if text else samples[:0],
        image_log_prob_RK=steps.log_prob_R[drawn],
        old_image_log_prob_RK=torch.stack([image.log_prob_K[part] for image in images]).to(model.device)[drawn],
        step_mask_RK=torch.ones_like(steps.log_prob_R[drawn], dtype=torch.bool),
        image_sample_R=known.image_sample_R,
        mean_RKLD=steps.mean_RLD[drawn],
        velocity_RKLD=steps.velocity_RLD[drawn],
        std_RK=steps.std_R[drawn],
        dt_RK=steps.dt_R[drawn],
        old_mean_RKLD=torch.stack(means).to(model.device)[drawn] if means else None,
        clean_RLD=torch.stack([image.final_LD for image in images]).to(model.device)[drawn],
        velocity=velocity,
    )


def _padded(parts: Sequence[Tensor], model: UnifiedModel) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True).to(model.device)
