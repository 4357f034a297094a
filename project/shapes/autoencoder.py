"""The autoencoder of the embedded world, trained on pictures of seen compositions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from project.models.bagel.patch_autoencoder import PatchAutoencoder, fit_patch_autoencoder
from project.shapes.renderer import render_all
from project.shapes.scenes import KINDS, sample_layout
from project.shapes.split import sample_scene_of


def train_autoencoder(steps: int, seed: int = 0, noise: float = 0.5) -> PatchAutoencoder:
    """A patch code with a decoder that forgives errors of up to `noise` standard deviations in the latents."""
    return fit_patch_autoencoder(pictures(np.random.default_rng(seed)), steps, noise=noise, seed=seed)


def pictures(rng: np.random.Generator, size: int = 64) -> Iterator[np.ndarray]:
    """Endless batches of pictures, uint8 [size, 64, 64, 3], evenly over the kinds of scene."""
    while True:
        scenes = [sample_scene_of(rng, KINDS[i % len(KINDS)], "seen") for i in range(size)]
        yield render_all([sample_layout(rng, scene) for scene in scenes])
