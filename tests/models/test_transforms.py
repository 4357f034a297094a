from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from project.models.bagel.image_transform import ImageTransform
from project.models.transforms import normalise, patchify, to_uint8, unpatchify

VAE = ImageTransform(max_size=1024, min_size=512, stride=16)


def reference_transform(bagel_fixture, name):
    numbers = bagel_fixture.cases["image_transform"]["transforms"][name]
    return ImageTransform(
        max_size=numbers["max_image_size"],
        min_size=numbers["min_image_size"],
        stride=numbers["image_stride"],
        max_pixels=numbers["max_pixels"],
    )


def test_sizes_match_every_reference_row(bagel_fixture):
    rows = bagel_fixture.cases["image_transform"]["size_table"]
    assert len(rows) > 0
    for name, width, height, img_num, width_out, height_out in rows:
        size = reference_transform(bagel_fixture, name).size(height, width, img_num)
        assert size == (height_out, width_out), (name, width, height, img_num)


@pytest.mark.parametrize("name", ["tiny_vae", "tiny_vit"])
def test_pixels_match_the_reference(bagel_fixture, parity, name):
    image = Image.fromarray(bagel_fixture.tensor("image_transform.in.image_u8").numpy())
    parity(reference_transform(bagel_fixture, name)(image), bagel_fixture.tensor(f"image_transform.out.{name}"))


def test_resized_picture_matches_the_reference(bagel_fixture):
    image = Image.fromarray(bagel_fixture.tensor("image_transform.in.image_u8").numpy())
    resized = np.array(reference_transform(bagel_fixture, "tiny_vae").resize(image))
    assert np.array_equal(resized, bagel_fixture.tensor("image_transform.out.tiny_vae_resized_u8").numpy())


@pytest.mark.parametrize("case", ["ode_edit", "ode_t2i_num_timesteps5", "ode_t2i_no_cfg"])
def test_uint8_matches_the_reference(bagel_fixture, case):
    levels = to_uint8(bagel_fixture.tensor(f"{case}.out.decoded")[0]).int()
    difference = (levels - bagel_fixture.tensor(f"{case}.out.decoded_u8").int()).abs()
    # The tolerance of the reference data: one level on fewer than 1% of the pixels.
    assert difference.max() <= 1
    assert difference.float().mean() < 0.01


def test_latent_tokens_match_the_reference(bagel_fixture):
    latents, tokens = (bagel_fixture.tensor(f"ode_edit.out.final_latent{kind}") for kind in ("_nchw", ""))
    channels = latents.shape[1]
    patch = math.isqrt(tokens.shape[-1] // channels)
    assert torch.equal(patchify(latents[0], patch), tokens)
    assert torch.equal(unpatchify(tokens, *latents.shape[-2:], patch=patch, channels=channels), latents[0])


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1024, 1024, (1024, 1024)),
        (2048, 1024, (1024, 512)),
        (100, 100, (512, 512)),  # enlarged to the short side
        (100, 2000, (48, 1024)),  # enlarged to 512 x 10240, then the long side capped: 51.2 -> 48
        (1024, 680, (1024, 672)),  # 680 / 16 = 42.5, which round() takes to the even 42
    ],
)
def test_size_by_hand(height, width, expected):
    assert VAE.size(height, width) == expected


def test_area_is_shared_by_the_pictures_of_a_sequence():
    transform = replace(VAE, max_pixels=2 * 512 * 512)
    assert transform.size(512, 512, img_num=2) == (512, 512)
    # 512^2 is twice the share of four pictures: the sides are halved (upstream scales sides by the area's ratio)
    assert transform.size(512, 512, img_num=4) == (256, 256)


def test_impossible_bounds_are_refused():
    with pytest.raises(ValueError, match="stride <= min_size <= max_size"):
        ImageTransform(max_size=64, min_size=128, stride=16)


def test_a_picture_is_turned_upright_and_opaque_before_it_is_resized():
    image = Image.new("RGBA", (32, 16), (0, 0, 0, 0))
    image.getexif()[0x0112] = 6
    resized = ImageTransform(max_size=64, min_size=16, stride=16).resize(image)
    assert (resized.mode, resized.height, resized.width) == ("RGB", 32, 16)
    assert resized.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("size", [(1, 1), (2000, 8), (8, 2000), (1, 100_000)])
def test_a_picture_may_be_tiny_or_thin(size):
    pixels = VAE(Image.new("RGB", size))
    assert pixels.shape[1] % 16 == pixels.shape[2] % 16 == 0
    assert min(pixels.shape[1:]) >= 16 and max(pixels.shape[1:]) <= VAE.max_size


def test_levels_survive_the_round_trip_and_values_are_clamped():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    pixels = normalise(levels)
    assert pixels.shape == (1, 1, 16, 16)
    assert pixels.min() == -1 and pixels.max() == 1
    assert torch.equal(to_uint8(pixels), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0]).reshape(1, 1, 2)).flatten().tolist() == [0, 255]


def test_patch_order_by_hand():
    # 2 channels of 2x4: channel c, row y, column x holds 100 c + 10 y + x
    c, y, x = torch.meshgrid(torch.arange(2), torch.arange(2), torch.arange(4), indexing="ij")
    tokens = patchify((100 * c + 10 * y + x).float(), 2)
    assert tokens.tolist() == [[0, 100, 1, 101, 10, 110, 11, 111], [2, 102, 3, 103, 12, 112, 13, 113]]


def test_unpatchify_inverts_patchify_for_any_batch():
    pixels = torch.randn(2, 3, 5, 6, 8)
    tokens = patchify(pixels, 2)
    assert tokens.shape == (2, 3, 12, 20)
    assert torch.equal(unpatchify(tokens, 6, 8, patch=2, channels=5), pixels)
    assert unpatchify(tokens[:0], 6, 8, patch=2, channels=5).shape == (0, 3, 5, 6, 8)


def test_unfitting_patches_are_refused():
    with pytest.raises(ValueError, match="5x4 cannot be cut into patches of 2x2"):
        patchify(torch.zeros(1, 5, 4), 2)
    with pytest.raises(ValueError, match=r"tokens \[6, 4\] do not make 1 channels of 4x4"):
        unpatchify(torch.zeros(6, 4), 4, 4, patch=2, channels=1)
