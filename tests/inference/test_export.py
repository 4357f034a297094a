"""Load, two updates with LoRA, export both ways, load again: the same pictures."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

from project.__main__ import main
from project.inference.export import export_adapter, parse_size, whole_folder
from project.inference.pipeline import UnifiedPipeline
from project.models.bagel import Bagel, BagelConfig
from project.models.lora import LoRA, adapter_parameters, add_lora, load_adapter, merge_adapters
from project.training.checkpoints import load_policy

EMBEDDED = "data/shapes/umm"


def small_size(config):
    """Height and width [pixels] of 4 x 6 latent tokens, as far as the position table goes."""
    rows, columns = (min(n, config.max_latent_size) for n in (4, 6))
    return rows * config.pixels_per_latent, columns * config.pixels_per_latent


def picture(model, steps=4):
    pipe = UnifiedPipeline(model)
    height, width = small_size(model.config)
    noise = torch.Generator().manual_seed(0)
    drawn = pipe("a red circle", height=height, width=width, num_steps=steps, generator=noise, think=True, max_tokens=6)
    return np.asarray(drawn.images[0])


def digest(model):
    return hashlib.sha256(picture(model).tobytes()).hexdigest()


def run(base, folder, dtype="float32"):
    """A run of two updates; its last checkpoint."""
    height, width = small_size(BagelConfig.from_directory(base))
    small = {
        "trainer": {"accelerator": "cpu", "precision": "32-true", "max_steps": 2, "callbacks": []},
        "rewards": [{"class_path": "project.rewards.random.RandomReward"}],
        "run": {"root": str(folder), "name": "small"},
        "model": {
            "init_args": {
                "policy": {"init_args": {"directory": str(base), "dtype": dtype}},
                "trainable": {"lora": {"rank": 4, "alpha": 8}},
                "optimizer": {"init_args": {"lr": 0.01}},
                "num_generations": 2,
                "task": {"init_args": {"height": height, "width": width, "max_tokens": 4}},
            }
        },
        "data": {"init_args": {"train": str(folder / "train.jsonl"), "val": None, "prompts_per_update": 2}},
        "benchmarks": [],
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    rows = [{"prompt": text} for text in ("a red circle", "a blue square")]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["fit", "--config=configs/bagel/rt2i.yaml", f"--config={folder / 'small.yaml'}"]) == 0
    return folder / "small/version_0/checkpoints/last.ckpt"


def exported(trained, form, name, *arguments):
    """The folder that `export` writes."""
    _, checkpoint, folder = trained
    out = folder / name
    assert main(["export", "--checkpoint", str(checkpoint), "--format", form, "--out", str(out), *arguments]) == 0
    assert [file.name for file in folder.iterdir() if file.name.endswith(".partial")] == []
    return out


def assert_equal_weights(ours, theirs):
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def kept(value, of):
    """What `of` holds for the keys of `value`, at every depth."""
    return {key: kept(inner, of.get(key)) for key, inner in value.items()} if isinstance(value, dict) else of


@pytest.fixture(scope="module", params=["embedded", "reference"])
def trained(request, tmp_path_factory):
    base = EMBEDDED
    if request.param == "reference":
        base = str(request.getfixturevalue("bagel_fixture").directory)
    folder = tmp_path_factory.mktemp(request.param)
    return base, run(base, folder), folder


@pytest.fixture(scope="module")
def adapter(trained):
    return exported(trained, "peft", "peft")


def test_the_adapter_draws_the_same_picture(trained, adapter):
    base, checkpoint, _ = trained
    before = digest(load_policy(str(checkpoint)))
    assert digest(load_policy(base)) != before, "two updates changed no pixel: nothing is proved here"
    assert digest(load_policy(base, adapter=str(adapter))) == before
    assert oct((adapter / "adapter_model.safetensors").stat().st_mode) == oct(
        (adapter / "adapter_config.json").stat().st_mode
    )


def test_merged_weights_equal_a_merge_in_memory(trained):
    checkpoint = str(trained[1])
    merged = load_policy(str(exported(trained, "bagel", "merged", "--max-shard-size", "300KB")))
    original = load_policy(checkpoint)
    before = picture(original).astype(int)
    merge_adapters(original)
    assert_equal_weights(merged, original)
    difference = np.abs(picture(merged).astype(int) - before).max(-1)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_shards_have_the_size_that_was_asked_for(trained):
    out = exported(trained, "bagel", "shards", "--max-shard-size", "60KB")
    index = json.loads((out / "ema.safetensors.index.json").read_text())
    files = sorted(file.name for file in out.glob("ema*.safetensors"))
    assert (
        len(files) > 2 and files == sorted(set(index["weight_map"].values())) and not (out / "ema.safetensors").exists()
    )
    total = 0
    for file in files:
        with safe_open(out / file, "pt") as tensors:
            sizes = [tensors.get_tensor(name).nbytes for name in tensors.keys()]  # noqa: SIM118
            assert sum(sizes) <= 60_000 or len(sizes) == 1
            total += sum(sizes)
    assert total == index["metadata"]["total_size"]


def test_merged_in_bf16_is_the_exact_sum_rounded_once(trained):
    merged = Bagel.from_pretrained(str(exported(trained, "bagel", "bf16", "--dtype", "bfloat16")), "bfloat16")
    original = load_policy(str(trained[1]))
    merge_adapters(original)
    assert_equal_weights(merged.bfloat16(), original.bfloat16())


def test_the_layout_is_that_of_the_base(trained):
    base, _, _ = trained
    out = exported(trained, "bagel", "layout")
    for name in ("ema.safetensors", "ae.safetensors"):
        with safe_open(out / name, "pt") as ours, safe_open(Path(base) / name, "pt") as theirs:
            assert {n: ours.get_slice(n).get_shape() for n in ours.keys()} == {  # noqa: SIM118
                n: theirs.get_slice(n).get_shape()
                for n in theirs.keys()  # noqa: SIM118
            }
    for name in ("llm_config.json", "vit_config.json", "config.json"):
        ours, theirs = (json.loads((folder / name).read_text()) for folder in (out, Path(base)))
        assert kept(theirs, ours) == theirs, name


def test_what_other_tools_read_goes_along(bagel_fixture, tmp_path):
    """The slow tokenizer's files, settings that are not ours, and in an adapter the name of its base."""
    base = tmp_path / "base"
    shutil.copytree(bagel_fixture.directory, base)
    foreign = {"do_sample": True, "temperature": 0.7}
    (base / "generation_config.json").write_text(json.dumps(foreign))
    model = load_policy(str(base))
    model.save_pretrained(tmp_path / "again")
    vocabularies = [json.loads((folder / "vocab.json").read_text()) for folder in (base, tmp_path / "again")]
    assert vocabularies[0] == vocabularies[1]
    ours, theirs = ((folder / "merges.txt").read_text().splitlines() for folder in (tmp_path / "again", base))
    assert [line for line in ours if line[:1] != "#"] == [line for line in theirs if line[:1] != "#"]
    settings = json.loads((tmp_path / "again/generation_config.json").read_text())
    assert {name: settings[name] for name in foreign} == foreign and "alphagrpo" in settings
    tokenizer = json.loads((base / "tokenizer_config.json").read_text())
    if tokenizer["tokenizer_class"] != "TokenizersBackend":  # which is made of tokenizer.json alone
        (tmp_path / "again/tokenizer.json").unlink()
    text = "Draw a small red cube, left of THE 3 trees!"
    assert load_policy(str(tmp_path / "again")).encode_text(text).tolist() == model.encode_text(text).tolist()
    add_lora(model, LoRA(rank=2, alpha=4))
    export_adapter(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)


def test_a_bf16_base_goes_out_as_a_merge_in_memory(bagel_fixture, tmp_path):
    """As for BAGEL-7B: the frozen base in bf16, adapters in fp32."""
    base = str(bagel_fixture.directory)
    trained = base, run(base, tmp_path, "bfloat16"), tmp_path
    original = load_policy(str(trained[1]))
    assert original.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in adapter_parameters(original).values())
    again = Bagel.from_pretrained(base, "bfloat16")
    load_adapter(again, str(exported(trained, "peft", "peft")))
    assert digest(again) == digest(original)
    merged = Bagel.from_pretrained(str(exported(trained, "bagel", "merged")), "bfloat16")
    wide = Bagel.from_pretrained(str(exported(trained, "bagel", "wide", "--dtype", "float32")))
    merge_adapters(original)
    assert_equal_weights(merged, original)
    name = "language_model.model.layers.0.self_attn.q_proj"
    delta = again.get_submodule(name).get_delta_weight("default")
    exact = again.state_dict()[f"{name}.base_layer.weight"].float() + delta
    assert torch.equal(wide.state_dict()[f"{name}.weight"], exact), "widened before the sum, so nothing is rounded off"
    difference = np.abs(picture(wide).astype(int) - picture(again.float()).astype(int)).max(-1)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_peft_reads_the_adapter(trained, adapter):
    """By peft's own loading, over a model that peft itself wraps."""
    from peft import LoraConfig, PeftModel

    config = LoraConfig.from_pretrained(str(adapter))
    assert (config.r, config.lora_alpha, config.inference_mode) == (4, 8, True)
    plain = load_policy(trained[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected).*adapter keys.*")
        wrapped = PeftModel.from_pretrained(plain, str(adapter)).base_model.model
    theirs, ours = adapter_parameters(wrapped), adapter_parameters(load_policy(str(trained[1])))
    assert theirs.keys() == ours.keys() and len(ours) > 40
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    assert digest(wrapped) == digest(load_policy(str(trained[1])))


def test_our_folder_is_what_peft_itself_writes(trained, adapter, tmp_path):
    from peft import PeftModel
    from safetensors.torch import load_file

    PeftModel.from_pretrained(load_policy(trained[0]), str(adapter)).save_pretrained(tmp_path / "again")
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, tmp_path / "again"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    ours, theirs = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (adapter, tmp_path / "again")
    )
    differing = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert differing <= {"base_model_name_or_path", "auto_mapping", "task_type"}


def test_a_run_goes_on_from_an_exported_adapter(trained, adapter, tmp_path):
    """Two more updates from the adapter; the KL terms hold to where they started."""
    base, _, _ = trained
    (tmp_path / "first").mkdir()
    start = {"trainable": {"lora": {"rank": 4, "alpha": 8, "adapter": str(adapter)}}, "reference": "start"}
    start["objective"] = {"class_path": "project.objectives.grpo.GRPO", "init_args": {"kl_text": 0.1, "kl_image": 0.1}}
    overlay = tmp_path / "start.yaml"
    overlay.write_text(yaml.safe_dump({"model": {"init_args": start}}))
    first = yaml.safe_load((adapter.parent / "small.yaml").read_text())
    first["run"] = {"root": str(tmp_path), "name": "second"}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(first))
    files = ["configs/bagel/rt2i.yaml", str(tmp_path / "small.yaml"), str(overlay)]
    assert main(["fit", *(f"--config={file}" for file in files)]) == 0
    last = tmp_path / "second/version_0/checkpoints/last.ckpt"
    state = torch.load(last, weights_only=True)["state_dict"]
    assert not any("start" in name for name in state)
    again = load_policy(str(last))
    assert digest(again) != digest(load_policy(base, adapter=str(adapter)))


def test_whole_weights_have_no_adapter(tmp_path, capsys):
    arguments = ["--checkpoint", EMBEDDED, "--out", str(tmp_path / "out")]
    assert main(["export", *arguments, "--format", "peft"]) == 1
    assert "--format bagel" in capsys.readouterr().err
    assert main(["export", *arguments, "--format", "bagel", "--dtype", "float16"]) == 0
    assert_equal_weights(load_policy(str(tmp_path / "out")), load_policy(EMBEDDED).half().float())
    assert main(["export", *arguments, "--format", "bagel"]) == 1
    assert "is in use" in capsys.readouterr().err


def test_interrupted_writing_leaves_nothing(tmp_path):
    def half(out):
        with whole_folder(out) as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    """A full disk, at the second of the shards."""
    from project.models import weight_files

    calls = []

    def full(tensors, file, **settings):
        calls.append(file)
        if len(calls) == 2:
            raise OSError("no space left on device")
        Path(file).write_bytes(b"")

    model = load_policy(EMBEDDED)
    monkeypatch.setattr(weight_files, "save_file", full)
    from project.inference.export import export_merged

    with pytest.raises(OSError, match="no space"):
        export_merged(model, tmp_path / "out", max_shard_size=1_000_000)
    assert len(calls) == 2 and list(tmp_path.iterdir()) == []


def test_export_needs_a_free_place(tmp_path):
    (tmp_path / "file").write_text("")
    model = load_policy(EMBEDDED)
    with pytest.raises(ValueError, match="no adapters"):
        export_adapter(model, tmp_path / "out")
    for taken in (tmp_path / "file", tmp_path):
        with pytest.raises(ValueError, match="in use"), whole_folder(taken):
            pass
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty") as folder:
        (folder / "weights").write_text("whole")
    assert (tmp_path / "empty/weights").read_text() == "whole"


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("1.5 MiB", 3 * 2**19), ("1000", 1000), ("2kb", 2000), ("0", None)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "5 parsecs"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)
