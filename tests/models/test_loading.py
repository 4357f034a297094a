"""Checkpoint folders: what is written is read back, and what is wrong is said at once."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_leaves

from project.models.bagel import Bagel
from project.models.bagel.autoencoder import Autoencoder
from project.models.bagel.config import BagelDefaults
from project.models.bagel.patch_autoencoder import PatchAutoencoder, PatchAutoencoderConfig
from project.models.bagel.source import BagelCheckpoint
from project.planning.live_bytes import LiveBytes
from project.shapes.umm import NewEmbeddedModel


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    PatchAutoencoder(PatchAutoencoderConfig()).save(folder)
    small = NewEmbeddedModel(hidden_size=32, intermediate_size=48, num_layers=2, autoencoder=str(folder))
    return small.load()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_saved_model_is_read_back_bit_by_bit(model, folder):
    loaded = Bagel.from_pretrained(str(folder))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert loaded.config == model.config and loaded.defaults == model.defaults
    assert loaded.encode_text("a red circle").tolist() == model.encode_text("a red circle").tolist()
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    assert torch.equal(loaded.encode_image(pixels), model.encode_image(pixels))
    assert not loaded.latent_pos_embed.pos_embed.requires_grad


def test_half_precision_files_are_widened(model, tmp_path):
    model.save_pretrained(tmp_path, torch.float16)
    loaded = Bagel.from_pretrained(str(tmp_path))
    assert loaded.dtype == torch.float32
    weight = "language_model.lm_head.weight"
    assert torch.equal(loaded.state_dict()[weight], model.state_dict()[weight].half().float())


def test_shards_named_by_an_index_are_read(model, folder):
    weights = load_file(folder / "ema.safetensors")
    names = sorted(weights)
    parts = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    where = {name: file for file, part in parts.items() for name in part}
    (folder / "ema.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "ema.safetensors").unlink()
    loaded = Bagel.from_pretrained(str(folder))
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_all_faulty_tensors_are_listed_in_one_error(folder):
    weights = load_file(folder / "ema.safetensors")
    weights["llm2vae.bias"] = torch.zeros(3)
    weights["stranger.weight"] = torch.zeros(1)
    del weights["connector.fc1.bias"]
    save_file(weights, folder / "ema.safetensors")
    with pytest.raises(ValueError) as error:
        Bagel.from_pretrained(str(folder))
    message = str(error.value)
    assert "llm2vae.bias in ema.safetensors has shape (3,), not (64,)" in message
    assert "unexpected stranger.weight" in message and "missing connector.fc1.bias" in message


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("file", "name"), [("ema.safetensors", "connector.fc1.weight"), ("ae.safetensors", "decoder.conv_in.weight")]
)
def test_numbers_that_are_none_are_refused(folder, file, name, number):
    weights = load_file(folder / file)
    weights[name].view(-1)[1] = number
    save_file(weights, folder / file)
    with pytest.raises(ValueError, match=rf"{file}: {name} holds NaN or infinite numbers"):
        Bagel.from_pretrained(str(folder))


def test_large_numbers_are_finite(folder):
    """Their sum is not, in half precision."""
    weights = {name: tensor.half() for name, tensor in load_file(folder / "ema.safetensors").items()}
    weights["llm2vae.weight"].fill_(60000)
    save_file(weights, folder / "ema.safetensors")
    assert Bagel.from_pretrained(str(folder)).llm2vae.weight.max() > 59000


@pytest.mark.parametrize(
    "name",
    [
        *("ema.safetensors", "ae.safetensors", "llm_config.json", "ae_config.json", "generation_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "merges.txt", "ema.safetensors.index.json"),
    ],
)
def test_what_git_lfs_left_is_named(folder, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match=rf"{name}.* is a Git LFS pointer.*git lfs pull"):
        Bagel.from_pretrained(str(folder))


@pytest.mark.parametrize(
    "name", ["llm_config.json", "vit_config.json", "config.json", "ae_config.json", "generation_config.json"]
)
def test_a_byte_order_mark_is_no_fault(model, folder, name):
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    loaded = Bagel.from_pretrained(str(folder))
    assert loaded.config == model.config and loaded.defaults == model.defaults


def test_a_half_written_file_is_named(folder):
    content = (folder / "ema.safetensors").read_bytes()
    (folder / "ema.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"ema\.safetensors cannot be read"):
        Bagel.from_pretrained(str(folder))


@pytest.mark.parametrize("name", ["ema.safetensors", "llm_config.json", "vit_config.json", "ae.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.replace(".", r"\.")):
        Bagel.from_pretrained(str(folder))


def test_a_broken_root_config_does_not_matter_for_what_it_only_repeats(folder):
    """Upstream's was once invalid JSON: BAGEL-7B's own numbers are then taken, which do not fit this model."""
    (folder / "config.json").write_text("{,}")
    with pytest.raises(ValueError, match=r"latent_pos_embed(.|\n)*config\.json is missing or invalid"):
        Bagel.from_pretrained(str(folder))


def edited(file, **changes):
    """A configuration file with other values; None takes a key away."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize(
    "name",
    [
        *("llm_config.json", "vit_config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("ema.safetensors.index.json", "ae_config.json"),
    ],
)
@pytest.mark.parametrize("content", ['{"a": 1,\n}', "[1]"])
def test_a_broken_json_file_is_named(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        Bagel.from_pretrained(str(folder))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llm_config.json", {"rope_theta": None}, "lacks the key 'rope_theta'"),
        ("llm_config.json", {"hidden_size": "big"}, "'hidden_size' is 'big'"),
        ("llm_config.json", {"num_attention_heads": 3}, "must be a multiple of the next"),
        ("llm_config.json", {"num_hidden_layers": 0}, "'num_hidden_layers' is 0"),
        ("vit_config.json", {"patch_size": True}, "'patch_size' is True"),
        ("config.json", {"vae_config": []}, "'vae_config' is"),
        ("generation_config.json", {"alphagrpo": {"hieght": 64}}, "unknown setting 'hieght'"),
        ("generation_config.json", {"alphagrpo": {"height": "big"}}, "'height' is 'big'"),
        ("generation_config.json", {"alphagrpo": {"vae_sides": [64, 64]}}, "'vae_sides' is"),
        ("ema.safetensors.index.json", {"weight_map": {"a": 1}}, "weight_map names no files"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(folder, name, changes, message):
    if not (folder / name).exists():
        (folder / name).write_text("{}")
    edited(folder / name, **changes)
    with pytest.raises(ValueError, match=f"{name.replace('.', '[.]')}(.|\n)*{message}"):
        Bagel.from_pretrained(str(folder))


def test_a_missing_tokenizer_is_named(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
        Bagel.from_pretrained(str(folder))


def test_a_tokenizer_of_another_model_is_refused(folder):
    edited(folder / "llm_config.json", vocab_size=3)
    with pytest.raises(ValueError, match=r"embed_tokens\.weight has 3 rows"):
        Bagel.from_pretrained(str(folder))


@pytest.mark.parametrize("name", ["ema.safetensors", "ae.safetensors"])
def test_an_empty_or_cut_file_is_named(folder, name):
    content = (folder / name).read_bytes()
    for size in (0, 4, len(content) - 1):
        (folder / name).write_bytes(content[:size])
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            Bagel.from_pretrained(str(folder))


def test_a_shard_that_is_not_there_is_named(folder):
    (folder / "ema.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors is missing"):
        Bagel.from_pretrained(str(folder))


def test_a_path_may_hold_spaces(model, tmp_path):
    place = tmp_path / "my models" / "a b"
    model.save_pretrained(place)
    assert Bagel.from_pretrained(str(place)).name_or_path == str(place)


def test_weights_are_put_where_the_context_says(folder, monkeypatch):
    """A rank that loads under its own device never holds the weights on the CPU first."""
    from project.models import weight_files

    asked = []

    def opened(file, framework, device):
        asked.append((file.name, device))
        return safe_open(file, framework=framework)

    monkeypatch.setattr(weight_files, "safe_open", opened)
    with torch.device("cpu", 0):
        Bagel.from_pretrained(str(folder))
    assert asked == [("ae.safetensors", "cpu:0"), ("ema.safetensors", "cpu:0")]


def test_no_folder_and_no_hub_id(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        Bagel.from_pretrained(str(tmp_path / "nowhere" / "at" / "all"))
    with pytest.raises(FileNotFoundError, match="no hub/id with spaces is neither a folder"):
        Bagel.from_pretrained("no hub/id with spaces")


def test_pictures_that_do_not_fit_are_refused(model):
    with pytest.raises(ValueError, match="multiples of 16"):
        model.latent_grid(64, 40)
    with pytest.raises(ValueError, match=r"position table ends at 128 .*latent_pos_embed\.pos_embed holds 8 x 8"):
        model.latent_grid(64, 256)
    patch, side = model.config.vision.patch_size, model.config.vit_max_num_patch_per_side
    with pytest.raises(ValueError, match=rf"vit_pos_embed\.pos_embed holds {side} x {side}"):
        model.picture_patches(torch.zeros(3, patch * (side + 1), patch))


def test_the_autoencoder_is_no_part_of_the_policy(model):
    assert not any("autoencoder" in name for name in model.state_dict())
    assert isinstance(model.autoencoder, Autoencoder)
    assert not any(p.requires_grad for p in model.autoencoder.parameters())


# --------------------------------------------------------------------- memory


class Held(LiveBytes):
    """Does not count what is on the meta device; also `largest`, bytes of the largest tensor of each type."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        values = tree_leaves((args, kwargs))
        if any(isinstance(v, torch.Tensor) and v.is_meta for v in values) or torch.device("meta") in values:
            return func(*args, **(kwargs or {}))
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.largest[value.dtype] = max(self.largest.get(value.dtype, 0), value.nbytes)
        return result


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model that is large beside its autoencoder."""
    folder = tmp_path_factory.mktemp("wide")
    PatchAutoencoder(PatchAutoencoderConfig(width=8, num_res_blocks=1)).save(folder)
    return NewEmbeddedModel(hidden_size=256, intermediate_size=512, num_layers=3, autoencoder=str(folder)).load()


HEADS = ("language_model.lm_head", "llm2vae")
"""What a backbone may hold in fp32."""


def bytes_of(module):
    return sum(parameter.nbytes for parameter in module.parameters())


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_weights_are_held_once_in_the_type_that_was_asked_for(wide, tmp_path, stored):
    wide.save_pretrained(tmp_path, stored)
    with Held() as held:
        model = BagelCheckpoint(str(tmp_path)).load_as(torch.bfloat16)
    assert {p.dtype for name, p in model.named_parameters() if not name.startswith(HEADS)} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.autoencoder.parameters()} == {torch.float32}
    largest, autoencoder = max(parameter.nbytes for parameter in model.parameters()), bytes_of(model.autoencoder)
    heads = 4 * sum(p.numel() for name, p in model.named_parameters() if name.startswith(HEADS))
    assert heads + autoencoder < bytes_of(model) / 20 and largest < bytes_of(model) / 10
    if stored == torch.bfloat16:
        assert held.largest[torch.float32] <= heads + autoencoder < largest, "no large weight was fp32 on the way"
    # The tensor that is being read is fp32 if the file is.
    assert held.peak <= bytes_of(model) + autoencoder + 2 * largest


def test_weights_keep_the_type_of_the_files(model, tmp_path):
    for dtype in (torch.bfloat16, torch.float32):
        model.save_pretrained(tmp_path / str(dtype), dtype)
        loaded = BagelCheckpoint(str(tmp_path / str(dtype)), dtype="float32").load_as(None)
        assert {p.dtype for name, p in loaded.named_parameters() if not name.startswith(HEADS)} == {dtype}


def test_a_folder_is_there_when_it_is_whole(model, tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise OSError("no space left on device")

    monkeypatch.setattr("project.models.weight_files.save_file", full)
    with pytest.raises(OSError, match=rf"^{tmp_path}/out/ema\.safetensors could not be written \(no space"):
        model.save_pretrained(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_published_sampling_stands_where_a_folder_says_nothing(folder):
    """A section of our own is taken as it is: what it leaves out are the usual defaults."""
    (folder / "generation_config.json").write_text('{"do_sample": true}')
    defaults = Bagel.from_pretrained(str(folder)).defaults
    assert (defaults.max_tokens, defaults.temperature, defaults.top_p) == (2048, 0.3, 1.0)
    (folder / "generation_config.json").write_text('{"alphagrpo": {"height": 64}}')
    defaults, usual = Bagel.from_pretrained(str(folder)).defaults, BagelDefaults()
    assert (defaults.temperature, defaults.top_p) == (usual.temperature, usual.top_p) and defaults.height == 64
