from __future__ import annotations

import logging
import stat

import numpy as np
import pytest
import torch

from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.patch_autoencoder import (
    PatchAutoencoder,
    PatchAutoencoderConfig,
    fit_patch_autoencoder,
    principal_patches,
)
from project.models.transforms import normalise, to_uint8
from project.shapes.renderer import render_all
from project.shapes.scenes import COLOURS, SHAPES, SIZES, Object, place

SMALL = PatchAutoencoderConfig(width=16, num_res_blocks=1)


def shape_pictures(seed, size=32):
    """Endless pictures of up to four objects of any kind."""
    rng = np.random.default_rng(seed)
    things = [None, *(Object(colour=c, shape=s, size=z) for c in COLOURS for s in SHAPES for z in SIZES)]
    while True:
        chosen = rng.integers(len(things), size=(size, 4)) * (rng.random((size, 4)) < 0.6)
        yield render_all([place(rng, [things[i] for i in row]) for row in chosen])


def error(autoencoder, pixels):
    with torch.no_grad():
        return (autoencoder.decode(autoencoder.encode(pixels)) - pixels).square().mean().item()


def test_components_by_hand():
    # points (3, 0), (-3, 0), (0, 1), (0, -1) around (10, 20): variances 18/4 and 2/4
    points = torch.tensor([[13.0, 20.0], [7.0, 20.0], [10.0, 21.0], [10.0, 19.0]])
    mean, components, deviation, share = principal_patches(points, 1)
    torch.testing.assert_close(mean, torch.tensor([10.0, 20.0], dtype=torch.float64))
    torch.testing.assert_close(components, torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    torch.testing.assert_close(deviation, torch.tensor([4.5**0.5], dtype=torch.float64))
    assert share == pytest.approx(0.9)


def test_a_code_with_all_components_is_exact():
    pictures = np.random.default_rng(0).integers(0, 256, size=(64, 8, 8, 3), dtype=np.uint8)
    config = PatchAutoencoderConfig(patch_size=2, z_channels=12, width=8, num_res_blocks=1)
    autoencoder = fit_patch_autoencoder(iter([pictures]), 0, config=config, pca_batches=1)
    with torch.no_grad():
        decoded = autoencoder.decode(autoencoder.encode(normalise(torch.from_numpy(pictures))))
    torch.testing.assert_close(decoded, normalise(torch.from_numpy(pictures)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("whiten", "ratio_power"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_latents_are_normalised_and_whitening_compresses_their_spread(whiten, ratio_power):
    pictures = next(shape_pictures(0, 128))
    autoencoder = fit_patch_autoencoder(iter([pictures]), 0, config=SMALL, whiten=whiten, pca_batches=1)
    plain = fit_patch_autoencoder(iter([pictures]), 0, config=SMALL, whiten=0.0, pca_batches=1)
    with torch.no_grad():
        latents, energies = (a.encode(normalise(torch.from_numpy(pictures))) for a in (autoencoder, plain))
    deviation, energy = latents.std((0, 2, 3)), energies.std((0, 2, 3))
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(16), atol=1e-4, rtol=0)
    assert latents.square().mean().item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(deviation / deviation[0], (energy / energy[0]) ** ratio_power, atol=1e-3, rtol=1e-3)


def test_half_whitening_forgives_noise_best():
    pictures = next(shape_pictures(0, 128))
    pixels = normalise(torch.from_numpy(pictures))
    errors = {}
    for whiten in (0.0, 0.25, 0.5, 0.75, 1.0):
        autoencoder = fit_patch_autoencoder(iter([pictures]), 0, config=SMALL, whiten=whiten, pca_batches=1)
        with torch.no_grad():
            latents = autoencoder.encode(pixels)
            noise = 0.5 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
            errors[whiten] = (autoencoder.decode(latents + noise) - pixels).square().mean().item()
    assert min(errors, key=errors.__getitem__) == 0.5


def test_training_the_decoder_beats_the_linear_one_and_is_logged(caplog):
    unseen = normalise(torch.from_numpy(next(shape_pictures(1, 64))))
    linear = fit_patch_autoencoder(shape_pictures(0), 0)
    with caplog.at_level(logging.INFO, logger="project.models.bagel.patch_autoencoder"):
        trained = fit_patch_autoencoder(shape_pictures(0), 150, noise=0.0)
    assert error(trained, unseen) < 0.75 * error(linear, unseen)
    assert torch.equal(trained.encoder.weight, linear.encoder.weight)
    assert "step 100 of 150" in caplog.text


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_stream_alone():
    state = torch.get_rng_state()
    first, again = (fit_patch_autoencoder(shape_pictures(0, 8), 3, config=SMALL, pca_batches=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_size_and_shapes_of_the_default():
    autoencoder = PatchAutoencoder(PatchAutoencoderConfig())
    assert (autoencoder.channels, autoencoder.downsample) == (16, 8)
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) < 300_000
    with torch.no_grad():
        latents = autoencoder.encode(torch.zeros(2, 3, 16, 24))
        assert latents.shape == (2, 16, 2, 3)
        assert autoencoder.decode(latents).shape == (2, 3, 16, 24)
        assert torch.equal(autoencoder.encode(torch.zeros(2, 3, 16, 24), sample=True), latents)


@torch.no_grad()
def test_save_and_load_round_trip(tmp_path):
    autoencoder = fit_patch_autoencoder(shape_pictures(0, 8), 0, config=SMALL, pca_batches=4)
    autoencoder.save(tmp_path, torch.float16)
    loaded = Autoencoder.from_directory(tmp_path)
    assert isinstance(loaded, PatchAutoencoder)
    assert loaded.config == SMALL
    pixels = normalise(torch.from_numpy(next(shape_pictures(1, 8))))
    difference = (
        to_uint8(loaded.decode(loaded.encode(pixels))).int()
        - to_uint8(autoencoder.decode(autoencoder.encode(pixels))).int()
    )
    assert difference.abs().max() <= 2  # fp16 weights
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1, "weights and config are readable by the same people"


@pytest.mark.parametrize(
    ("batches", "steps", "message"),
    [(3, 1, "ended after 3 of 4 batches"), (6, 5, "ended after 2 of 5 training batches")],
)
def test_pictures_that_end_early_are_refused(batches, steps, message):
    stream = shape_pictures(0, 4)
    pictures = iter([next(stream) for _ in range(batches)])
    with pytest.raises(ValueError, match=message):
        fit_patch_autoencoder(pictures, steps, config=SMALL, pca_batches=4)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="whiten is 2; give an exponent between 0"):
        fit_patch_autoencoder(shape_pictures(0), whiten=2)
    with pytest.raises(ValueError, match="z_channels is 13; a patch has 12 numbers at most"):
        PatchAutoencoderConfig(z_channels=13, patch_size=2)
