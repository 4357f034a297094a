"""Checkpoints of runs in the type and on the device that were asked for, trained tensors included."""

from __future__ import annotations

import pytest
import torch
import yaml

from project.__main__ import main
from project.inference.pipeline import UnifiedPipeline
from project.models.bagel import Bagel
from project.training.checkpoints import load_policy, read_checkpoint, write_checkpoint
from tests.helpers import tiny_run

JUDGE = "project.shapes.judge.DetectorJudge"


@pytest.fixture(scope="module", params=["adapters", "all weights"])
def last(request, tmp_path_factory):
    """The checkpoint of a run of one update."""
    world = tiny_run.write_world(tmp_path_factory.mktemp("run"))
    lora = {"rank": 2, "alpha": 4} if request.param == "adapters" else None
    changes = {"trainable": {"lora": lora, "freeze": [], "parameter_groups": {}}}
    (world / "what.yaml").write_text(yaml.safe_dump({"model": {"init_args": changes}}))
    assert tiny_run.fit(world, "run", JUDGE, "--config", str(world / "what.yaml"), "--trainer.max_steps=1") == 0
    return world / "runs/run/version_0/checkpoints/last.ckpt"


def test_every_weight_has_the_type_that_was_asked_for(last, monkeypatch):
    wide = load_policy(str(last)).state_dict()
    widths = []
    real = Bagel.requires_grad_
    monkeypatch.setattr(Bagel, "requires_grad_", lambda model, *a: widths.append(model.dtype) or real(model, *a))
    narrow = UnifiedPipeline.from_pretrained(str(last), device="cpu", dtype=torch.bfloat16).model
    heads = ("language_model.lm_head", "llm2vae")  # a backbone may hold them in fp32
    assert {p.dtype for name, p in narrow.named_parameters() if not name.startswith(heads)} == {torch.bfloat16}
    assert all(width == torch.bfloat16 for width in widths), "the base was narrow when adapters were laid over it"
    assert narrow.state_dict().keys() == wide.keys()
    trained = read_checkpoint(last)["state_dict"]
    for name, tensor in narrow.state_dict().items():
        assert torch.equal(tensor, wide[name].to(tensor.dtype)), name
    assert all(torch.equal(wide[name.removeprefix("policy.")], tensor) for name, tensor in trained.items())
    assert {parameter.dtype for parameter in narrow.autoencoder.parameters()} == {torch.float32}


def test_a_folder_of_shards_is_refused_by_every_reader(last, tmp_path, capsys):
    shards = tmp_path / "checkpoints/last.ckpt"
    shards.mkdir(parents=True)
    (shards / "__0_0.distcp").touch()  # another shard, and the list of them, are missing
    for read in (read_checkpoint, lambda path: load_policy(str(path))):
        with pytest.raises(ValueError, match=r"last\.ckpt is a folder, such as sharded .* give a file"):
            read(shards)
    assert main(["export", f"--checkpoint={shards}", "--format=peft", f"--out={tmp_path / 'out'}"]) == 1
    assert "is a folder, such as sharded checkpoints are" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tensors_of_another_shape_are_listed(last, tmp_path):
    saved = read_checkpoint(last)
    name = next(name for name, tensor in saved["state_dict"].items() if tensor.ndim == 2)
    shape = tuple(saved["state_dict"][name].shape)
    saved["state_dict"] = {**saved["state_dict"], name: torch.zeros(3, 5), "policy.stranger": torch.zeros(1)}
    write_checkpoint(last.with_name("other.ckpt"), saved)
    with pytest.raises(ValueError, match=r"other\.ckpt does not belong to the policy of .*config\.yaml") as caught:
        load_policy(str(last.with_name("other.ckpt")))
    assert "unexpected stranger" in str(caught.value)
    assert f"{name.removeprefix('policy.')} has shape (3, 5), not {shape}" in str(caught.value)
