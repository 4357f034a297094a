"""Drawing one image per context row, and replaying the trained steps of such drawings."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from project.core.randomness import normal
from project.models.alike import AlikeStates
from project.models.base import UnifiedModel
from project.models.context import Contexts
from project.models.transforms import to_uint8
from project.samplers.guidance import Guidance
from project.samplers.sampler import Sampler
from project.samplers.transition import Moved
from project.trajectory import ImageSegment, SampleKey, Velocity

PIXELS_DECODED = 2**20
"""Most pixels that the autoencoder decodes at once: four pictures of 512x512, 256 of 64x64."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Size of the pictures [pixels] and how their prompts guide them.

    Attributes:
        shared_noise: start all samples of a group from one initial noise, so that they differ only by what the policy
            decided (and by the noise inside the window).
    """

    height: int = 512
    width: int = 512
    guidance: Guidance = Guidance()
    shared_noise: bool = False

    @property
    def decoded_at_once(self) -> int:
        """Most pictures that go through the autoencoder together."""
        return max(PIXELS_DECODED // (self.height * self.width), 1)

    def start(self, key: SampleKey) -> SampleKey:
        """Key of a sample's initial noise."""
        return replace(key, sample=0) if self.shared_noise else key


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the contexts of a picture were made of: where it is equal, they are.

    Attributes:
        main: everything.
        free: what was read, which the contexts without text or picture hold a part of.
    """

    main: Hashable
    free: Hashable


@torch.no_grad()
def draw(
    model: UnifiedModel,
    contexts: Contexts,
    keys: Sequence[SampleKey],
    canvas: Canvas,
    sampler: Sampler,
    windows: Sequence[Sequence[int]] | None = None,
    round: int = 0,
    initial_NLD: Tensor | None = None,
    keep_means: bool = False,
    origins: Sequence[Origin] | None = None,
) -> list[ImageSegment]:
    """One image per row of the contexts, by ODE with stochastic transitions inside the window of the row.

    The contexts need room for one latent block (`UnifiedModel.latent_room`). The keys decide all noise; `initial_NLD`
    replaces the initial noise. No key is needed then if there are no windows: None = every row follows the ODE.
    `keep_means` also keeps the means of the transitions. With `origins` of the contexts, pictures that are the same up
    to an evaluation are computed once.
    """
    grid = model.latent_grid(canvas.height, canvas.width)
    length, size = grid[0] * grid[1], model.latent_size
    x_NLD = _initial_noise(keys, canvas, round, length, size) if initial_NLD is None else initial_NLD
    x_NLD = x_NLD.to(model.device)
    windows = [range(0)] * len(x_NLD) if windows is None else windows
    states: dict[int, Tensor] = {}
    moves: dict[int, Moved] = {}
    for step in range(sampler.evaluations):
        sigma = sampler.sigma_N[step : step + 1]
        alike = None
        if initial_NLD is None and origins is not None:
            unmoved = [not window or step <= window[0] for window in windows]
            alike = alike_states(keys, canvas, origins, unmoved, step, model.device)
        v_NLD = model.velocity(x_NLD[:, None], sigma, contexts, canvas.guidance, grid, alike=alike)[:, 0]
        step_N = torch.full((len(x_NLD),), step, device=model.device)
        inside = [step in window for window in windows]
        if not any(inside):
            x_NLD = sampler.euler(x_NLD, v_NLD, step_N)
            continue
        states[step] = x_NLD
        noise_NLD = normal(keys, f"step {step}", length, size, round=round).to(model.device)
        moves[step] = sampler.sample(x_NLD, v_NLD, step_N, noise_NLD)
        following_NLD = moves[step].next_RLD
        if not all(inside):
            inside_N11 = torch.tensor(inside, device=model.device)[:, None, None]
            following_NLD = following_NLD.where(inside_N11, sampler.euler(x_NLD, v_NLD, step_N))
        states[step + 1] = x_NLD = following_NLD
    # A few at a time: the activations of the autoencoder are the largest of a rollout.
    parts = x_NLD.split(canvas.decoded_at_once)
    pixels = torch.cat([to_uint8(model.decode_latents(part, grid)).cpu() for part in parts])
    place = {step: s for s, step in enumerate(states)}
    taken = {step: m for m, step in enumerate(moves)}
    # One copy of each from a GPU, not one for each picture.
    states_NSLD, final_NLD = torch.stack([*states.values(), x_NLD], 1).cpu(), x_NLD.cpu()
    log_prob_NM = torch.stack([m.log_prob_R for m in moves.values()], 1).cpu() if moves else torch.zeros(len(x_NLD), 0)
    means_NMLD = torch.stack([m.mean_RLD for m in moves.values()], 1).cpu() if moves and keep_means else None
    segments = []
    for n, window in enumerate(windows):
        before, after = [place[step] for step in window], [place[step + 1] for step in window]
        moved = [taken[step] for step in window]
        segments.append(
            ImageSegment(
                latents_KLD=_at(states_NSLD[n], before),
                next_KLD=_at(states_NSLD[n], after),
                step_K=torch.tensor(window, dtype=torch.long),
                log_prob_K=_at(log_prob_NM[n], moved),
                final_LD=final_NLD[n],
                pixels_HWC=pixels[n],
                mean_KLD=None if means_NMLD is None else _at(means_NMLD[n], moved),
            )
        )
    return segments


def alike_states(
    keys: Sequence[SampleKey],
    canvas: Canvas,
    origins: Sequence[Origin],
    unmoved: Sequence[bool],
    step: int,
    device: torch.device,
) -> AlikeStates | None:
    """Pictures that are the same at an evaluation: until the first stochastic one, noise and contexts decide all.

    Args:
        unmoved: whether none of a picture's stochastic evaluations came before `step`.
    """
    starts = [canvas.start(key) for key in keys]
    main: list[Hashable] = [
        (start, origin.main) if still else row
        for row, (start, origin, still) in enumerate(zip(starts, origins, unmoved, strict=True))
    ]
    # Later states were moved by what the whole context says, so that the other branches differ too.
    free = main if step else [(start, origin.free) for start, origin in zip(starts, origins, strict=True)]
    return AlikeStates.by(main, free, device)


def _at(value: Tensor, places: Sequence[int]) -> Tensor:
    """Rows of a tensor: a view where they are neighbours, so that the states of a picture are kept once."""
    if not places:
        return value[:0]
    if list(places) == list(range(places[0], places[0] + len(places))):
        return value[places[0] : places[0] + len(places)]
    return value[list(places)]


def given_picture(pixels_HWC: np.ndarray) -> ImageSegment:
    """A picture that was not drawn by the policy, uint8 [height, width, 3]."""
    nothing = torch.zeros(0)
    return ImageSegment(
        latents_KLD=nothing,
        next_KLD=nothing,
        step_K=torch.zeros(0, dtype=torch.long),
        log_prob_K=nothing,
        final_LD=nothing,
        pixels_HWC=torch.from_numpy(np.ascontiguousarray(pixels_HWC)),
    )


def stand_in(steps: Sequence[int], length: int, size: int) -> ImageSegment:
    """A picture of zeros with trained steps, that a replay reads where there is no other.

    Args:
        length, size: L, latent tokens, and D, values of each.
    """
    states_KLD = torch.zeros(len(steps), length, size)
    return ImageSegment(
        latents_KLD=states_KLD,
        next_KLD=states_KLD,
        step_K=torch.tensor(steps, dtype=torch.long),
        log_prob_K=torch.zeros(len(steps)),
        final_LD=torch.zeros(length, size),
        pixels_HWC=torch.zeros(0, 0, 3, dtype=torch.uint8),
        mean_KLD=states_KLD,
    )


def replay_steps(
    segments: Sequence[ImageSegment],
    velocity: Velocity,
    sampler: Sampler,
    device: torch.device,
    part: slice = slice(None),
) -> Moved:
    """The K trained transitions of one image per row (or a part of them), all in one forward; leading dims [rows, K].

    Raises ValueError if the images were not trained at the same steps.
    """
    step_K = segments[0].step_K
    if any(not torch.equal(segment.step_K, step_K) for segment in segments):
        raise ValueError("images replayed together must share their window of trained steps")
    step_K = step_K[part]
    x_BKLD = torch.stack([segment.latents_KLD[part] for segment in segments]).to(device)
    next_BKLD = torch.stack([segment.next_KLD[part] for segment in segments]).to(device)
    if not len(step_K):
        nothing_BK = x_BKLD.new_zeros(x_BKLD.shape[:2])
        return Moved(
            next_RLD=next_BKLD,
            mean_RLD=x_BKLD,
            std_R=nothing_BK,
            dt_R=nothing_BK,
            log_prob_R=nothing_BK,
            velocity_RLD=x_BKLD,
        )
    v_BKLD = velocity(x_BKLD, sampler.sigma_N[step_K])
    return sampler.log_prob(x_BKLD, v_BKLD, step_K.to(device).expand(x_BKLD.shape[:2]), next_BKLD)


def _initial_noise(keys: Sequence[SampleKey], canvas: Canvas, round: int, *shape: int) -> Tensor:
    return normal([canvas.start(key) for key in keys], "initial noise", *shape, round=round)
