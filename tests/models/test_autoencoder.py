from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.flux_autoencoder import FluxAutoencoder, FluxAutoencoderConfig

TINY = FluxAutoencoderConfig(ch=32, ch_mult=(1, 2), num_res_blocks=1, z_channels=4)


@pytest.fixture(scope="session")
def reference(bagel_fixture):
    return Autoencoder.from_directory(bagel_fixture.directory)


@pytest.fixture
def saved(tmp_path):
    FluxAutoencoder(TINY).save(tmp_path)
    return tmp_path


@torch.no_grad()
def test_encoder_matches_the_reference(reference, bagel_fixture, parity):
    pixels = bagel_fixture.tensor("vae.in.pixels")
    mean, std = reference.posterior(pixels)
    parity(torch.cat([mean, 2 * std.log()], dim=1), bagel_fixture.tensor("vae.out.moments"))
    parity(reference.encode(pixels), bagel_fixture.tensor("vae.out.latent"))


@torch.no_grad()
@pytest.mark.parametrize(
    ("latents", "pixels"),
    [("vae.out.latent", "vae.out.decoded"), ("ode_edit.out.final_latent_nchw", "ode_edit.out.decoded")],
)
def test_decoder_matches_the_reference(reference, bagel_fixture, parity, latents, pixels):
    parity(reference.decode(bagel_fixture.tensor(latents)), bagel_fixture.tensor(pixels))


def test_upstream_numbers_are_the_default():
    with torch.device("meta"):
        released = FluxAutoencoder(FluxAutoencoderConfig())
    assert (released.channels, released.downsample) == (16, 8)
    assert (released.config.scale_factor, released.config.shift_factor) == (0.3611, 0.1159)
    assert sum(parameter.numel() for parameter in released.parameters()) == 83_819_683  # 83.8 M, facts of BAGEL


@torch.no_grad()
def test_latents_are_the_scaled_mean_and_sampling_adds_the_posterior_spread():
    autoencoder = FluxAutoencoder(TINY)
    pixels = torch.rand(1, 3, 8, 8) * 2 - 1
    mean, std = autoencoder.posterior(pixels)
    torch.testing.assert_close(autoencoder.encode(pixels), 0.3611 * (mean - 0.1159))

    draws = torch.cat([autoencoder.encode(pixels, sample=True) for _ in range(400)])
    z = (draws - 0.3611 * (mean - 0.1159)) / (0.3611 * std)
    assert abs(z.mean()) < 4 / math.sqrt(z.numel())
    assert abs(z.std() - 1) < 4 / math.sqrt(2 * z.numel())


@torch.no_grad()
def test_a_draw_is_named_by_its_generator():
    autoencoder, pixels = FluxAutoencoder(TINY), torch.zeros(1, 3, 8, 8)
    first, again, other = (
        autoencoder.encode(pixels, sample=True, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sides_must_be_multiples_of_the_stride():
    with pytest.raises(ValueError, match="9x8 cannot be encoded: make both sides multiples of 2"):
        FluxAutoencoder(TINY).encode(torch.zeros(1, 3, 9, 8))


@torch.no_grad()
def test_save_and_load_round_trip(tmp_path):
    autoencoder = FluxAutoencoder(TINY).eval()
    autoencoder.save(tmp_path / "new")
    loaded = Autoencoder.from_directory(tmp_path / "new")
    pixels = torch.randn(1, 3, 8, 8)
    assert loaded.config == TINY
    assert not loaded.training
    assert torch.equal(loaded.decode(loaded.encode(pixels)), autoencoder.decode(autoencoder.encode(pixels)))
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["ae.safetensors", "ae_config.json"]


@pytest.mark.parametrize("config", [TINY, FluxAutoencoderConfig(ch=32, ch_mult=(1, 1, 2), num_res_blocks=2)])
def test_files_hold_the_names_of_the_original_checkpoints(tmp_path, config):
    """Levels of the decoder by resolution, attention as 1x1 convolutions; what is written again is the same file."""
    torch.manual_seed(0)
    FluxAutoencoder(config).save(tmp_path / "one")
    tensors = load_file(tmp_path / "one/ae.safetensors")
    last = len(config.ch_mult) - 1
    for name, shape in {
        "encoder.down.0.block.0.conv1.weight": (32, 32, 3, 3),
        f"encoder.down.{last}.block.0.nin_shortcut.weight": (64, 32, 1, 1),
        "encoder.mid.attn_1.q.weight": (64, 64, 1, 1),
        "decoder.mid.attn_1.proj_out.weight": (64, 64, 1, 1),
        f"decoder.up.{last}.upsample.conv.weight": (64, 64, 3, 3),
        "decoder.up.0.block.1.conv2.bias": (32,),
        "decoder.norm_out.weight": (32,),
    }.items():
        assert tensors[name].shape == shape, name
    assert "decoder.up.0.upsample.conv.weight" not in tensors and f"encoder.down.{last}.downsample" not in tensors
    Autoencoder.from_directory(tmp_path / "one").save(tmp_path / "two")
    one, two = ((tmp_path / name / "ae.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_the_file_of_the_reference_is_written_as_it_was(reference, bagel_fixture, tmp_path):
    with safe_open(bagel_fixture.directory / "ae.safetensors", "pt") as stored:
        reference.save(tmp_path, stored.get_tensor("encoder.conv_in.weight").dtype)
    assert (tmp_path / "ae.safetensors").read_bytes() == (bagel_fixture.directory / "ae.safetensors").read_bytes()


def test_half_precision_files_load_as_fp32(tmp_path):
    FluxAutoencoder(TINY).save(tmp_path, torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "ae.safetensors").values()} == {torch.float16}
    assert {tensor.dtype for tensor in Autoencoder.from_directory(tmp_path).state_dict().values()} == {torch.float32}


def test_an_interrupted_save_leaves_the_old_file(saved, monkeypatch):
    before = (saved / "ae.safetensors").read_bytes()

    def stop(tensors, file, metadata):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("project.models.bagel.autoencoder.save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        FluxAutoencoder(TINY).save(saved)
    assert (saved / "ae.safetensors").read_bytes() == before


def test_unfitting_tensors_are_listed_together(saved):
    file = saved / "ae.safetensors"
    tensors = load_file(file)
    tensors["encoder.conv_in.extra"] = tensors.pop("encoder.conv_in.bias")
    tensors["decoder.conv_out.weight"] = torch.zeros(1, 2)
    save_file(tensors, file)
    with pytest.raises(ValueError, match="3 tensors do not fit FluxAutoencoder") as error:
        Autoencoder.from_directory(saved)
    for part in (
        str(file),
        "missing encoder.conv_in.bias",
        "unexpected encoder.conv_in.extra",
        "decoder.conv_out.weight has shape (1, 2), not (3, 32, 3, 3)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, -1])
def test_a_truncated_file_is_named_with_its_remedy(saved, keep):
    file = saved / "ae.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else keep])
    with pytest.raises(ValueError, match=r"ae\.safetensors cannot be read .*copy it again"):
        Autoencoder.from_directory(saved)


def test_missing_weights_are_named(saved):
    (saved / "ae.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"ae\.safetensors: not found"):
        Autoencoder.from_directory(saved)


def test_without_a_config_the_released_numbers_are_expected(saved):
    (saved / "ae_config.json").unlink()
    with pytest.raises(ValueError, match=r"decoder\.conv_out\.weight has shape \(3, 32, 3, 3\), not \(3, 128, 3, 3\)"):
        Autoencoder.from_directory(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "holds a list"),
        (json.dumps({"architecture": "vq"}), r"unknown architecture 'vq'.*\['flux', 'patch'\]"),
        (json.dumps({"zchannels": 4}), r"unknown keys \['zchannels'\]"),
        (json.dumps({"ch_mult": [1, 2], "downsample": 8}), "downsample 8 contradicts the 2 entries"),
        (json.dumps({"ch": 20}), "multiple of 32"),
    ],
)
def test_a_bad_config_is_named(saved, content, message):
    (saved / "ae_config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"(?s)ae_config\.json:.*{message}"):
        Autoencoder.from_directory(saved)
