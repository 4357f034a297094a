"""Load, two updates with LoRA, export both ways, load again: the same pictures."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
import yaml

from project.__main__ import main
from project.checkpoints import load_policy
from project.export import write_whole
from project.models.bagel import Bagel
from project.models.lora import LoRA, add_lora, load_adapter, merge_adapters
from project.pipeline import UnifiedPipeline

EMBEDDED = "data/shapes/umm"
SIZE = {True: (64, 64), False: (16, 24)}
"""Pixels, of the embedded checkpoint (83 words) and of the reference checkpoint."""


def picture(model):
    pipe = UnifiedPipeline(model)
    height, width = SIZE[model.config.vocab_size < 100]
    drawn = pipe("a red circle", height=height, width=width, num_steps=3, generator=torch.Generator().manual_seed(0))
    return np.asarray(drawn.images[0])


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def run(base, folder):
    """A run of two updates; its last checkpoint."""
    height, width = SIZE[base == EMBEDDED]
    small = {
        "trainer": {"accelerator": "cpu", "precision": "32-true", "max_steps": 2, "callbacks": []},
        "rewards": [{"class_path": "project.rewards.random.RandomReward"}],
        "run": {"root": str(folder), "name": "small"},
        "model": {
            "init_args": {
                "policy": {"init_args": {"directory": str(base), "dtype": "float32"}},
                "lora": {"rank": 4, "alpha": 8},
                "optimizer": {"init_args": {"lr": 0.01}},
                "num_generations": 2,
                "task": {"init_args": {"height": height, "width": width, "max_tokens": 4}},
            }
        },
        "data": {"init_args": {"train": str(folder / "train.jsonl"), "prompts_per_update": 2}},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    rows = [{"prompt": text} for text in ("a red circle", "a blue square")]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["fit", "--config=configs/bagel/rt2i.yaml", f"--config={folder / 'small.yaml'}"]) == 0
    return folder / "small/version_0/checkpoints/last.ckpt"


@pytest.fixture(scope="module", params=["embedded", "reference"])
def trained(request, tmp_path_factory):
    base = EMBEDDED
    if request.param == "reference":
        base = str(request.getfixturevalue("bagel_fixture").directory)
    folder = tmp_path_factory.mktemp(request.param)
    return base, run(base, folder), folder


def test_round_trip(trained):
    base, checkpoint, folder = trained
    original = load_policy(str(checkpoint))
    before = picture(original)
    assert digest(before) != digest(picture(load_policy(base)))

    assert main(["export", "--checkpoint", str(checkpoint), "--format", "peft", "--out", f"{folder}/peft"]) == 0
    assert digest(picture(load_policy(base, adapter=f"{folder}/peft"))) == digest(before)

    arguments = ["--format", "bagel", "--out", f"{folder}/merged", "--max-shard-size", "1MB"]
    assert main(["export", "--checkpoint", str(checkpoint), *arguments]) == 0
    assert (folder / "merged/ema.safetensors.index.json").is_file()
    merged = load_policy(f"{folder}/merged")
    merge_adapters(original)
    for (name, ours), theirs in zip(merged.state_dict().items(), original.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    difference = np.abs(picture(merged).astype(int) - before.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_merged_in_bf16_equals_a_merge_in_memory(trained):
    _, checkpoint, folder = trained
    arguments = ["--format", "bagel", "--dtype", "bfloat16", "--out", f"{folder}/bf16"]
    assert main(["export", "--checkpoint", str(checkpoint), *arguments]) == 0
    original = load_policy(str(checkpoint)).bfloat16()
    merge_adapters(original)
    merged = Bagel.from_pretrained(f"{folder}/bf16", "bfloat16")
    for (name, ours), theirs in zip(merged.state_dict().items(), original.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_peft_reads_the_adapter(trained):
    """By peft's own loading, over a model that peft itself wrapped."""
    from peft import LoraConfig, PeftModel
    from peft.utils import load_peft_weights

    base, checkpoint, folder = trained
    assert main(["export", "--checkpoint", str(checkpoint), "--format", "peft", "--out", f"{folder}/for_peft"]) == 0
    config = LoraConfig.from_pretrained(f"{folder}/for_peft")
    assert (config.r, config.lora_alpha) == (4, 8)
    weights = load_peft_weights(f"{folder}/for_peft")
    plain = load_policy(base)
    plain.config = None  # peft asks Hugging Face models for theirs
    wrapped = PeftModel.from_pretrained(plain, f"{folder}/for_peft")
    ours = {n.replace(".default.", "."): p for n, p in wrapped.named_parameters() if "lora_" in n}
    assert ours.keys() == weights.keys() and all(torch.equal(ours[name], weights[name]) for name in weights)


def test_a_run_can_start_from_an_adapter(trained):
    base, checkpoint, folder = trained
    assert main(["export", "--checkpoint", str(checkpoint), "--format", "peft", "--out", f"{folder}/start"]) == 0
    model = load_policy(base)
    add_lora(model, LoRA(adapter=f"{folder}/start"))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)
    assert digest(picture(model)) == digest(picture(load_policy(str(checkpoint))))


def test_an_adapter_for_other_shapes_is_refused(trained):
    base, checkpoint, folder = trained
    out = folder / "other"
    assert main(["export", "--checkpoint", str(checkpoint), "--format", "peft", "--out", str(out)]) == 0
    config = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps({**config, "r": 3}))
    with pytest.raises(ValueError, match=r"other is an adapter of another model:\n.*lora_A.weight has shape \(4, "):
        load_adapter(load_policy(base), str(out))
    with pytest.raises(FileNotFoundError, match="no PEFT adapter"):
        load_adapter(load_policy(base), str(folder / "nowhere"))


def test_whole_weights_have_no_adapter(tmp_path, capsys):
    arguments = ["--checkpoint", "data/shapes/umm", "--out", str(tmp_path / "out")]
    assert main(["export", *arguments, "--format", "peft"]) == 1
    assert "--format bagel" in capsys.readouterr().err
    assert main(["export", *arguments, "--format", "bagel"]) == 0
    assert main(["export", *arguments, "--format", "bagel"]) == 1
    assert "is there already" in capsys.readouterr().err


def test_interrupted_writing_leaves_nothing(tmp_path):
    def write(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "out", write)
    assert list(tmp_path.iterdir()) == []
