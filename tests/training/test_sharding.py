"""A sharded run goes on elsewhere, and its checkpoints are those of one process for whatever reads them.

That it goes on exactly by itself, and trains as one process does, is shown by test_strategy_matrix.py.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from project.__main__ import main
from tests.helpers import ranks, tiny_run
from tests.helpers.state import saved, tensors

JUDGE = "project.shapes.judge.DetectorJudge"
KEEP = ["--trainer.callbacks+=project.callbacks.SaveLast", "--trainer.callbacks.keep_every_n_updates=2"]
EMA = ["--trainer.callbacks+=project.callbacks.EMA"]
RAW = ["--trainer.callbacks.validate_with=raw"]  # the average moves even where no weight does
STEPS = ["--trainer.max_steps=4", *EMA, *KEEP]
LORA = {"lora": {"rank": 2, "alpha": 4}, "freeze": [], "parameter_groups": {}}
CONSTANT = "tests.helpers.mortal_judge.MortalJudge"
"""A judge that says the same of all pictures: nothing is learned, so weights stay what they are, and are saved."""


def fit(world: Path, name: str, *options: str, size: int = 1, strategy: str = "auto") -> str:
    """Trains on some ranks; what rank 0 said."""
    given = [*options, f"--trainer.strategy={strategy}", f"--trainer.devices={size}"]
    return ranks.run(size, "project", *tiny_run.command(world, name, JUDGE, *given), timeout=240)[0]


def checkpoint(world: Path, name: str, file: str = "last.ckpt") -> Path:
    return world / f"runs/{name}/version_0/checkpoints/{file}"


def copied(world: Path, name: str, new: str) -> None:
    """The run folder as it was after two updates, under another name."""
    shutil.copytree(world / f"runs/{name}", world / f"runs/{new}")
    shutil.copy(checkpoint(world, new, "update_2.ckpt"), checkpoint(world, new))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with the run `whole` of four updates on two ranks under fsdp2."""
    world = tiny_run.write_world(tmp_path_factory.mktemp("sharded"))
    fit(world, "whole", *STEPS, size=2, strategy="fsdp2")
    return world


@pytest.mark.parametrize(
    ("size", "strategy", "processes"),
    [
        pytest.param(1, "auto", "one process"),
        pytest.param(4, "fsdp2", r"4 ranks (fsdp2)", marks=pytest.mark.slow),
        pytest.param(2, "ddp", r"2 ranks (ddp)", marks=pytest.mark.slow),
    ],
)
def test_a_sharded_run_goes_on_elsewhere_and_says_what_is_not_exact(
    sharded: Path, size: int, strategy: str, processes: str
) -> None:
    name = f"other_{strategy}_{size}"
    copied(sharded, "whole", name)
    said = fit(sharded, name, *STEPS, "--ckpt_path=last", size=size, strategy=strategy)
    assert f"goes on:  with {processes}; the checkpoint is of 2 ranks (fsdp2): weights" in said
    assert "equal but for rounding" in said
    whole, other = (tensors(saved(checkpoint(sharded, run))) for run in ("whole", name))
    assert whole.keys() == other.keys()
    assert any("average" in name for name in whole) and any("exp_avg" in name for name in whole)
    for name, value in whole.items():
        torch.testing.assert_close(other[name], value, atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_a_run_that_goes_on_as_it_was_says_nothing(sharded: Path) -> None:
    copied(sharded, "whole", "same")
    assert "goes on:" not in fit(sharded, "same", *STEPS, "--ckpt_path=last", size=2, strategy="fsdp2")


# --------------------------------------------------------------------- what reads checkpoints


def equal_pair(world: Path, *options: str) -> None:
    """The runs `alone` and `resaved`: checkpoints of the same weights, by one process, and by two under fsdp2."""
    assert tiny_run.fit(world, "alone", JUDGE, "--trainer.max_steps=2", *EMA, *RAW, *KEEP, *options) == 0
    copied(world, "alone", "resaved")
    given = ["--trainer.max_steps=4", *EMA, *RAW, *KEEP, *options, "--ckpt_path=last"]
    given += ["--model.init_args.update.max_skipped=1", "--trainer.strategy=fsdp2", "--trainer.devices=2"]
    said = ranks.run(
        2, "project", *tiny_run.command(world, "resaved", CONSTANT, *given, calls=100), timeout=240, codes=(1,)
    )
    assert "every advantage is zero" in said[0], said[0]
    alone, resaved = (saved(checkpoint(world, name)) for name in ("alone", "resaved"))
    assert (alone["updates"], resaved["updates"]) == (2, 3)
    assert resaved["processes"] == "2 ranks (fsdp2)", "it was written from shards"
    for name, tensor in alone["state_dict"].items():
        assert torch.equal(resaved["state_dict"][name], tensor), name


def pictures(world: Path, *options: str) -> list[str]:
    """Hashes of what `generate` draws."""
    out = world / "drawn"
    shutil.rmtree(out, ignore_errors=True)
    few = ["--prompts", str(world / "few.txt"), "--out", str(out), "--num-steps", "4"]
    assert main(["generate", *options, *few]) == 0
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(out.glob("*.png"))]


def exported(world: Path, name: str, form: str) -> str:
    out = world / f"{name}_{form}"
    assert main(["export", "--checkpoint", str(checkpoint(world, name)), "--format", form, "--out", str(out)]) == 0
    return str(out)


@pytest.mark.slow
def test_pictures_of_weights_that_differ_by_rounding_differ_by_a_level_at_most(sharded: Path) -> None:
    """The run of two ranks and the one of one process: their weights are equal to 2e-5."""
    (sharded / "few.txt").write_text("a red circle\na green square left of a blue circle\n")
    assert tiny_run.fit(sharded, "alone", JUDGE, *STEPS) == 0
    drawn = []
    for name in ("alone", "whole"):
        pictures(sharded, "--checkpoint", str(checkpoint(sharded, name)))
        drawn.append([np.asarray(Image.open(file)).astype(int) for file in sorted((sharded / "drawn").glob("*.png"))])
    differences = np.abs(np.stack(drawn[0]) - np.stack(drawn[1]))
    assert differences.max() <= 1 and differences.mean() < 0.01, (differences.max(), differences.mean())


@pytest.mark.parametrize("trained", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_whatever_reads_a_checkpoint_finds_that_of_one_process(
    trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = tiny_run.write_world(tmp_path)
    (world / "few.txt").write_text("a red circle\na green square left of a blue circle\n")
    (world / "few.jsonl").write_text("".join((world / "train.jsonl").read_text().splitlines(keepends=True)[:3]))
    (world / "lora.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"trainable": LORA}}}))
    options = [f"--config={world}/lora.yaml"] if trained == "lora" else []
    equal_pair(world, *options)
    found = []
    for name in ("alone", "resaved"):
        last = str(checkpoint(world, name))
        drawn = {"generate": pictures(world, "--checkpoint", last)}
        drawn["bagel"] = pictures(world, "--checkpoint", exported(world, name, "bagel"))
        if trained == "lora":
            peft = exported(world, name, "peft")
            drawn["peft"] = pictures(world, "--checkpoint", str(world / "umm"), "--adapter", peft)
            assert drawn["peft"] == drawn["generate"]
        part = str(checkpoint(world, name, "part.ckpt"))
        assert main(["untrain", "--checkpoint", last, "--parts", "layers.0", "--out", part]) == 0
        drawn["untrain"] = pictures(world, "--checkpoint", part)
        found.append(drawn | {"validate": validated(world, name)})
    assert found[0] == found[1]
    assert len({str(found[0][by]) for by in ("generate", "untrain")}) == 2, "the pictures do not tell the weights"
    assert main(["compare", "--before", found_rows(world, "alone"), "--after", found_rows(world, "resaved")]) == 0
    assert "+0.0 [+0.0, +0.0]" in capsys.readouterr().out


def validated(world: Path, name: str) -> list[str]:
    """Rows of the evaluation of a run's checkpoint."""
    measure = [f"--data.init_args.val={world / 'few.jsonl'}", "--trainer.limit_val_batches=1.0"]
    measure += ['--benchmarks=[{"class_path": "project.benchmarks.MeanReward"}]']
    one = ["--trainer.strategy=auto", "--trainer.devices=1", f"--run.root={world}/measured", f"--run.name={name}"]
    config = f"--config={world}/runs/alone/version_0/config.yaml"
    assert main(["validate", config, *one, *measure, f"--ckpt_path={checkpoint(world, name)}"]) == 0
    return Path(found_rows(world, name)).read_text().splitlines()


def found_rows(world: Path, name: str) -> str:
    (file,) = (world / f"measured/{name}/version_0/evaluations").glob("*.jsonl")
    return str(file)
