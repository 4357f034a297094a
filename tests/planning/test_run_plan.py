"""`python -m project plan`, the plan of BAGEL-7B without its files, and the advice when memory runs out."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from project.__main__ import main
from project.module import AlphaGRPO
from project.planning.estimates import Workload
from project.planning.out_of_memory import advised
from project.planning.run_plan import usable

RECIPE = "configs/bagel/rt2i.yaml"


def planned(tmp_path, *arguments, config=RECIPE):
    file = tmp_path / "plan.json"
    assert main(["plan", "--config", config, "--json", str(file), *arguments]) == 0
    return json.loads(file.read_text())


def test_bagel_7b_needs_no_files(tmp_path, capsys):
    plan = planned(tmp_path, "--gpu-memory", "80", "--peak-tflops", "989")
    # facts/bagel.md: 14,607,260,128 parameters in bf16, but those of both heads (logits, velocity) in fp32.
    heads = 152064 * 3584 + 64 * 3584 + 64
    assert plan["always"]["frozen weights"] == 2 * 14_607_260_128 + 2 * heads
    # Rank 32 on both experts: (in + out) of q, k, v, o, gate, up, down.
    sides = 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944)
    adapters = 4 * 32 * 28 * 2 * sides
    assert plan["always"]["trained weights (fp32)"] == plan["always"]["gradients (fp32)"] == adapters
    assert plan["always"]["optimizer state"] == pytest.approx(2 * adapters, rel=1e-3)
    # 84 M parameters of the FLUX autoencoder, fp32.
    assert plan["always"]["autoencoder"] == pytest.approx(4 * 83.8e6, rel=1e-3)
    work = Workload(**plan["work"])
    assert (work.group, work.micro_batch, work.latents, work.evaluations, work.trained) == (14, 1, 1026, 15, 10)
    assert plan["peak"] <= usable(80e9) and plan["largest"]["micro_batch"] >= 1
    printed = capsys.readouterr().out
    assert "--model.init_args.update.micro_batch_size=" in printed and "fits" in printed
    assert plan["seconds"]["rollout_image"] == pytest.approx(plan["flops"]["rollout_image"] / (0.4 * 989e12))


def test_the_fastest_that_fits_cuts_and_recomputes_nothing(tmp_path, capsys):
    plan = planned(tmp_path, "--gpu-memory", "80", "--reasoning-tokens", "300")
    fastest = plan["fastest"]
    assert not fastest.pop("gradient_checkpointing") and fastest["steps_per_backward"] == 1
    assert Workload(**fastest).micro_batch >= 1
    printed = capsys.readouterr().out
    assert "update.steps_per_backward=1" in printed and "without gradient checkpointing: 77" in printed
    never = planned(tmp_path, "--set", "model.init_args.objective.class_path=tests.helpers.toys.WholeSamples")
    assert never["largest"]["steps_per_backward"] is None


def test_what_does_not_fit_is_said(tmp_path, capsys):
    plan = planned(tmp_path, "--gpu-memory", "24")
    assert plan["largest"] is None
    assert "does not fit" in capsys.readouterr().out


def test_ranks_share_prompts_and_with_fsdp2_weights(tmp_path):
    one, ddp, fsdp = (
        planned(tmp_path, "--ranks", str(ranks), "--strategy", strategy)
        for ranks, strategy in ((1, "ddp"), (8, "ddp"), (8, "fsdp2"))
    )
    assert ddp["work"]["samples"] == fsdp["work"]["samples"] == 4 * 14
    assert planned(tmp_path, "--ranks", "7")["work"]["samples"] == 64, "samples are dealt, not prompts"
    assert sum(fsdp["always"].values()) < sum(one["always"].values()) < sum(ddp["always"].values())


def test_settings_change_the_plan(tmp_path):
    base = planned(tmp_path)
    smaller = planned(tmp_path, "--set", "model.init_args.num_generations=7", "--reasoning-tokens", "100")
    assert smaller["phases"]["rollout"]["caches"] < base["phases"]["rollout"]["caches"] / 2
    assert smaller["work"]["reasoning"] == 102 and smaller["work"]["group"] == 7


def test_refinement_looks_at_a_picture(tmp_path, capsys):
    plan = planned(tmp_path, "--config", "configs/bagel/srr.yaml")
    # 32 x 32 latents, 37 x 37 patches of 14 pixels, four delimiters.
    assert plan["work"]["picture"] == 1024 + 37 * 37 + 4 and plan["work"]["branches"] == 2
    printed = capsys.readouterr().out
    assert "requests_per_forward=" in printed and "before them 224 first pictures" in printed


def test_first_pictures_are_work_too(tmp_path):
    """7 pictures a prompt without text and without gradient; in mixed training all 14, which are replayed."""
    seven, one, mixed, alone = (
        planned(tmp_path, "--config", "configs/bagel/srr.yaml", "--peak-tflops", "989", *more)
        for more in (
            (), ("--set", "model.init_args.task.init_args.candidates=1"), ("--config", "configs/bagel/mixed.yaml"),
            ("--config", "configs/bagel/mixed.yaml", "--set", "model.init_args.task.init_args.train_first=false",
             "--set", "model.init_args.task.init_args.candidates=14"),
        )
    )  # fmt: skip
    share = (seven["flops"]["rollout_image"] - one["flops"]["rollout_image"]) / 6
    # 39 evaluations of which those above 0.4 are guided by one more branch; three branches in every refined one.
    assert 1.2 < seven["flops"]["rollout_image"] / (one["flops"]["rollout_image"] - share) < 1.4
    assert seven["flops"]["replay"] == one["flops"]["replay"] < mixed["flops"]["replay"]
    assert alone["flops"]["replay"] == one["flops"]["replay"]
    assert alone["flops"]["rollout_image"] == pytest.approx(mixed["flops"]["rollout_image"])
    assert seven["seconds"]["rollout_image"] > one["seconds"]["rollout_image"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--ranks", "0"], "--ranks 0"), (["--set", "nothing"], "KEY=VALUE"), (["--gpu-memory", "0"], "more than 0")],
)
def test_wrong_arguments(arguments, message, capsys):
    assert main(["plan", "--config", RECIPE, *arguments]) == 1
    assert message in capsys.readouterr().err


# --------------------------------------------------------------------- out of memory


@pytest.fixture
def small(tmp_path):
    rows = [{"prompt": text} for text in ("a red circle", "a blue square")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overlay = {
        "trainer": {"accelerator": "cpu", "precision": "32-true", "max_steps": 2, "callbacks": []},
        "rewards": [{"class_path": "project.rewards.random.RandomReward"}],
        "run": {"root": str(tmp_path), "name": "small"},
        "model": {
            "init_args": {
                "policy": {"init_args": {"directory": "data/shapes/umm", "dtype": "float32"}},
                "num_generations": 4,
                "update": {"micro_batch_size": 4},
                "task": {"init_args": {"height": 64, "width": 64, "max_tokens": 4, "prompts_per_forward": 2}},
            }
        },
        "benchmarks": [],
        "data": {"init_args": {"train": str(tmp_path / "train.jsonl"), "val": None, "prompts_per_update": 2}},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(overlay))
    return ["--config", RECIPE, "--config", str(tmp_path / "small.yaml")]


def full(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


@pytest.mark.parametrize("command", ["fit", "bench"])
def test_memory_that_runs_out_is_answered_with_advice(small, monkeypatch, capsys, command):
    monkeypatch.setattr(AlphaGRPO, "replay", full)
    assert main([command, *small]) == 1
    said = capsys.readouterr().err
    assert said.count("out of memory in update 0 (CUDA out of memory. Tried to allocate 2.00 GiB.)") == 1
    assert "--model.init_args.update.micro_batch_size=" in said and "prompts_per_forward=" in said
    assert "Traceback" not in said


def test_the_advice_can_be_followed(small, monkeypatch, capsys):
    """Its options are options of `fit`, and they make both numbers no larger and one of them smaller."""
    monkeypatch.setattr(AlphaGRPO, "replay", full)
    assert main(["fit", *small]) == 1
    options = [word for word in capsys.readouterr().err.split() if word.startswith("--model.")]
    values = {option.partition("=")[0].rpartition(".")[2]: int(option.rpartition("=")[2]) for option in options}
    micro, together = values["micro_batch_size"], values["prompts_per_forward"]
    assert micro <= 4 and together <= 2 and ((micro, together) != (4, 2) or "steps_per_backward" in values)
    monkeypatch.undo()
    assert main(["fit", *small, *options]) == 0


def test_a_model_without_a_plan_gets_words(small, monkeypatch, capsys):
    from project.models.bagel.source import BagelCheckpoint
    from project.models.base import ModelSource

    monkeypatch.setattr(AlphaGRPO, "replay", full)
    monkeypatch.setattr(BagelCheckpoint, "outline", ModelSource.outline)
    assert main(["fit", *small]) == 1
    assert "a smaller model.init_args.update.micro_batch_size" in capsys.readouterr().err


def test_advice_when_nothing_fits(small):
    from project.cli.unrecorded import UnrecordedCLI
    from project.planning.run_plan import plan_of

    cli = UnrecordedCLI(["fit", *small])
    plan = plan_of(cli.model, "32-true", prompts=2)
    assert "share the weights out" in advised(plan, 0.0, cli.model.task)
    less = advised(plan, 0.99 * plan.memory().peak, cli.model.task)
    assert "micro_batch_size=" in less and "gradient_checkpointing" not in less
