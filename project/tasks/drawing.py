"""Drawing one image per context row, and replaying the trained steps of such drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from project.core.randomness import normal
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


@torch.no_grad()
def draw(
    model: UnifiedModel,
    contexts: Contexts,
    keys: Sequence[SampleKey],
    canvas: Canvas,
    sampler: Sampler,
    window: range,
    round: int = 0,
    initial_NLD: Tensor | None = None,
    keep_means: bool = False,
) -> list[ImageSegment]:
    """One image per row of the contexts, by ODE with stochastic transitions inside `window`.

    The contexts need room for one latent block (`UnifiedModel.latent_room`). The keys decide all noise; `initial_NLD`
    replaces the initial noise (no key is needed then if the window is empty). `keep_means` also keeps the means of the
    transitions.
    """
    grid = model.latent_grid(canvas.height, canvas.width)
    length, size = grid[0] * grid[1], model.latent_size
    x_NLD = _initial_noise(keys, canvas, round, length, size) if initial_NLD is None else initial_NLD
    x_NLD = x_NLD.to(model.device)
    states, means, steps, log_probs = [x_NLD], [], [], []
    for step in range(sampler.evaluations):
        sigma = sampler.sigma_N[step : step + 1]
        v_NLD = model.velocity(x_NLD[:, None], sigma, contexts, canvas.guidance, grid)[:, 0]
        step_N = torch.full((len(x_NLD),), step, device=model.device)
        if step in window:
            noise_NLD = normal(keys, f"step {step}", length, size, round=round).to(model.device)
            moved = sampler.sample(x_NLD, v_NLD, step_N, noise_NLD)
            x_NLD = moved.next_RLD
            steps.append(step)
            log_probs.append(moved.log_prob_R)
            if keep_means:
                means.append(moved.mean_RLD)
            states.append(x_NLD)
        else:
            x_NLD = sampler.euler(x_NLD, v_NLD, step_N)
            states = states if steps else [x_NLD]
    # A few at a time: the activations of the autoencoder are the largest of a rollout.
    parts = x_NLD.split(canvas.decoded_at_once)
    pixels = torch.cat([to_uint8(model.decode_latents(part, grid)).cpu() for part in parts])
    states_NKLD = torch.stack(states, 1).cpu()
    means_NKLD = torch.stack(means, 1).cpu() if means else None
    log_prob_NK = torch.stack(log_probs, 1).cpu() if log_probs else torch.zeros(len(x_NLD), 0)
    return [
        ImageSegment(
            latents_KLD=states_NKLD[n, : len(steps)],
            next_KLD=states_NKLD[n, 1 : len(steps) + 1],
            step_K=torch.tensor(steps, dtype=torch.long),
            log_prob_K=log_prob_NK[n],
            final_LD=x_NLD[n].cpu(),
            pixels_HWC=pixels[n],
            mean_KLD=None if means_NKLD is None else means_NKLD[n],
        )
        for n in range(len(x_NLD))
    ]


def replay_steps(segments: Sequence[ImageSegment], velocity: Velocity, sampler: Sampler, device: torch.device) -> Moved:
    """The K trained transitions of one image per row, all in one forward; leading dims [rows, K].

    Raises ValueError if the images were not trained at the same steps.
    """
    step_K = segments[0].step_K
    if any(not torch.equal(segment.step_K, step_K) for segment in segments):
        raise ValueError("images replayed together must share their window of trained steps")
    x_BKLD = torch.stack([segment.latents_KLD for segment in segments]).to(device)
    next_BKLD = torch.stack([segment.next_KLD for segment in segments]).to(device)
    if not len(step_K):
        nothing_BK = x_BKLD.new_zeros(x_BKLD.shape[:2])
        return Moved(next_RLD=next_BKLD, mean_RLD=x_BKLD, std_R=nothing_BK, dt_R=nothing_BK, log_prob_R=nothing_BK)
    v_BKLD = velocity(x_BKLD, sampler.sigma_N[step_K])
    return sampler.log_prob(x_BKLD, v_BKLD, step_K.to(device).expand(x_BKLD.shape[:2]), next_BKLD)


def _initial_noise(keys: Sequence[SampleKey], canvas: Canvas, round: int, *shape: int) -> Tensor:
    if not canvas.shared_noise:
        return normal(keys, "initial noise", *shape, round=round)
    shared = [SampleKey(seed=k.seed, update=k.update, prompt=k.prompt, occurrence=k.occurrence) for k in keys]
    return normal(shared, "initial noise", *shape, round=round)
