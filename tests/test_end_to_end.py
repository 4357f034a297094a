"""The whole program as a user runs it, on a tiny embedded model: fit, validate, generate, go on, and bad input."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from project.__main__ import main
from project.models.bagel.patch_autoencoder import PatchAutoencoderConfig, fit_patch_autoencoder
from project.shapes.autoencoder import pictures
from project.shapes.umm import NewEmbeddedModel
from tests.helpers import ROOT

DEMO = str(ROOT / "configs/shapes/demo.yaml")
SETS, PER_SET = 5, 520
PHASES = ("rollout_text", "rollout_image", "judge", "replay", "backward", "optimizer")
EVERY_UPDATE = {"every_n_updates": 1, "keep_every_n_updates": 1}


def lines(file: str, chosen: list[int]) -> str:
    every = (ROOT / "data/shapes" / file).read_text(encoding="utf-8").splitlines()
    return "".join(every[n] + "\n" for n in chosen)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny checkpoint, 8 training prompts, 10 for evaluation and the changes to the demo's YAML."""
    folder = tmp_path_factory.mktemp("world")
    small = PatchAutoencoderConfig(width=8, num_res_blocks=1)
    fit_patch_autoencoder(pictures(np.random.default_rng(0), 8), 0, pca_batches=2, config=small).save(folder / "ae")
    model = NewEmbeddedModel(hidden_size=32, intermediate_size=48, num_layers=2, autoencoder=str(folder / "ae")).load()
    # A new model draws the same whatever it is told; this one has something to say from the start.
    torch.nn.init.normal_(model.llm2vae.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(folder / "umm")
    (folder / "train.jsonl").write_text(lines("train.jsonl", list(range(8))))
    (folder / "val.jsonl").write_text(lines("eval.jsonl", [s * PER_SET + n for s in range(SETS) for n in (0, 1)]))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(changes(folder)))
    return folder


def changes(folder: Path) -> dict[str, Any]:
    drawing = {
        "sampler": {"schedule": {"num_steps": 5}, "window": {"size": 2, "range": [0, 3]}},
        "evaluation": {"schedule": {"num_steps": 3}},
    }
    return {
        "run": {"name": "tiny", "root": str(folder / "runs")},
        "trainer": {
            "max_steps": 2,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {"class_path": "project.callbacks.on_policy_gate.OnPolicyGate"},
                {"class_path": "project.callbacks.ema.EMA", "init_args": {"decay": 0.5}},
                {"class_path": "project.callbacks.panels.RolloutPanel", "init_args": {"every_n_updates": 1}},
                {"class_path": "project.callbacks.checkpoint.SaveLast", "init_args": EVERY_UPDATE},
            ],
        },
        "model": {
            "init_args": {
                "policy": {"init_args": {"directory": str(folder / "umm")}},
                "num_generations": 2,
                "optimizer": {"init_args": {"lr": 1.0e-2}},
                "lr_scheduler": {"init_args": {"steps": 100}},  # or a shorter run would decay sooner
                **drawing,
            }
        },
        "data": {
            "init_args": {
                "train": str(folder / "train.jsonl"),
                "val": str(folder / "val.jsonl"),
                "prompts_per_update": 2,
                "eval_batch_size": 5,
            }
        },
    }  # fmt: skip


def fit(world: Path, *arguments: str) -> int:
    return main(["fit", "--config", DEMO, "--config", str(world / "tiny.yaml"), *arguments])


UNMEASURED = ("--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0")


@pytest.fixture(scope="module")
def run(world: Path) -> Path:
    """The folder of a run of five updates (four are an epoch), every one of them kept."""
    assert fit(world, "--trainer.max_steps=5", "--run.name=whole") == 0
    return world / "runs/whole/version_0"


def saved(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)


def digest(checkpoint: dict[str, Any]) -> str:
    """Hash of every tensor of policy, optimizer and moving average, with their places."""
    sha = hashlib.sha256()
    averages = [state for name, state in checkpoint["callbacks"].items() if name.startswith("EMA")]
    assert len(averages) == 1 and averages[0]["average"]

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                sha.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for inner in value:
                add(inner)
        elif isinstance(value, torch.Tensor):
            sha.update(value.contiguous().numpy().tobytes())
        else:
            sha.update(repr(value).encode())

    add([checkpoint["updates"], checkpoint["state_dict"], checkpoint["optimizer_states"], averages])
    return sha.hexdigest()


# --------------------------------------------------------------------- what a run leaves behind


def test_the_run_folder_is_complete(run: Path) -> None:
    names = {"config.yaml", "metrics.csv", "results.json", "checkpoints/last.ckpt", "evaluations/shapes_0.jsonl"}
    assert all((run / name).is_file() for name in names), sorted(run.rglob("*"))
    assert saved(run)["updates"] == 5
    assert len((run / "evaluations/shapes_5.jsonl").read_text().splitlines()) == 2 * SETS
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["num_generations"] == 2


def test_metrics_csv_has_every_scalar(run: Path) -> None:
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    trained = [row for row in rows if row["grad_norm"]]
    assert len(trained) == 5
    phases = [f"time/{phase}" for phase in PHASES]
    for name in (
        *("reward/mean", "reward/tag/Existence", "reward/tag/Attribute", "reward/zero_std_ratio", "judge/unanswered"),
        *("ratio/text", "ratio/image", "clip_fraction/text", "clip_fraction/image", "entropy", "grad_norm"),
        *("loss/text", "loss/image", "on_policy/max_ratio_error", *phases),
    ):
        assert all(math.isfinite(float(row[name])) for row in trained), name
    assert all(float(row["on_policy/max_ratio_error"]) <= 1e-5 for row in trained)
    assert all(float(row["clip_fraction/image"]) == 0 for row in trained)
    assert [row["step"] for row in rows if row["shapes/reasoning"]] == ["0", "5"]


def test_tensorboard_shows_scalars_and_panels(run: Path) -> None:
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0}).Reload()
    assert {"reward/mean", "on_policy/max_ratio_error", "shapes/direct"} <= set(events.Tags()["scalars"])
    panels = events.Images("rollout")
    assert [panel.step for panel in panels] == [1, 2, 3, 4, 5]
    assert panels[0].encoded_image_string.startswith(b"\x89PNG") and panels[0].width > 300
    assert any(tag.startswith("rollout") for tag in events.Tags()["tensors"]), "the panel's table is missing"


def test_results_json_tells_before_and_after(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert (results["updates"], results["seed"]) == (5, 0) and results["seconds"] > 0
    for scores in (results["before"], results["after"]):
        assert set(scores["by_kind"]) == {"single", "size"}
        for figures in (scores, *scores["by_kind"].values()):
            for name in ("direct", "direct_practised", "direct_heldout", "indirect", "reasoning", "reasoning_heldout"):
                assert 0 <= figures[name] <= 1
            assert 0 < figures["reward"] < 1
    assert results["before"] != results["after"], "five large updates changed no score"


def test_validate_measures_what_the_fit_measured(world: Path, run: Path) -> None:
    last = f"--ckpt_path={run}/checkpoints/last.ckpt"
    assert main(["validate", "--config", str(run / "config.yaml"), "--run.name=validated", last]) == 0
    validated = json.loads((world / "runs/validated/version_0/results.json").read_text())
    assert validated["after"] == json.loads((run / "results.json").read_text())["after"]
    assert main(["results", str(world / "runs/validated")]) == 0


# --------------------------------------------------------------------- going on


def test_resumed_equals_uninterrupted(world: Path, run: Path) -> None:
    """Contract 5, stopped in mid-epoch (after 2 of 4 updates) and at its end; the whole run also measured."""
    common = ("--run.name=parts", *UNMEASURED)
    parts = world / "runs/parts/version_0"
    assert fit(world, *common, "--trainer.max_steps=2") == 0
    assert digest(saved(parts)) == digest(saved(run, "update_2"))
    for stop in (4, 5):
        last = f"--ckpt_path={parts}/checkpoints/last.ckpt"
        assert fit(world, *common, f"--trainer.max_steps={stop}", last) == 0
        assert saved(parts)["updates"] == stop
        assert digest(saved(parts)) == digest(saved(run, f"update_{stop}")), f"differs after update {stop}"
    assert digest(saved(run, "update_4")) != digest(saved(run, "update_5"))
    updates = [row["step"] for row in csv.DictReader((parts / "metrics.csv").open()) if row["grad_norm"]]
    assert len(updates) == len(set(updates)) == 5


def test_another_seed_is_another_run(world: Path, run: Path) -> None:
    assert fit(world, "--run.name=seeded", "--seed_everything=1", "--trainer.max_steps=1", *UNMEASURED) == 0
    assert digest(saved(world / "runs/seeded/version_0")) != digest(saved(run, "update_1"))


# --------------------------------------------------------------------- generate


def generated(world: Path, out: str, checkpoint: Path, *arguments: str) -> dict[str, bytes]:
    """Name -> bytes of every file of a `generate`."""
    folder = world / "generated" / out
    files = ["--checkpoint", str(checkpoint), "--prompts", str(world / "val.jsonl"), "--out", str(folder)]
    assert main(["generate", *files, "--num-steps", "4", *arguments]) == 0
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", ["folder", "run"])
def test_generate_gives_the_same_bytes_for_the_same_seed(world: Path, run: Path, kind: str) -> None:
    checkpoint = world / "umm" if kind == "folder" else run / "checkpoints/last.ckpt"
    first, again, batched, other = (
        generated(world, f"{kind}{n}", checkpoint, *arguments)
        for n, arguments in enumerate([["--seed", "3"], ["--seed", "3"], ["--seed", "3"], ["--seed", "4"]])
    )
    assert list(first) == [*(f"{n:04d}.png" for n in range(10)), "trajectories.jsonl"]
    assert first == again == batched
    assert all(first[name] != other[name] for name in first)
    rows = [json.loads(line) for line in first["trajectories.jsonl"].splitlines()]
    assert [row["file"] for row in rows] == list(first)[:-1]
    assert all({"file", "sample", "prompt", "image", "reasoning", "seed", "settings"} == set(row) for row in rows)
    assert rows[0]["seed"] == 3 and rows[0]["settings"]["num_steps"] == 4


def test_generate_uses_the_trained_weights(world: Path, run: Path) -> None:
    last = run / "checkpoints/last.ckpt"
    base, raw, ema = (
        generated(world, name, checkpoint, *arguments)["0000.png"]
        for name, checkpoint, arguments in [
            ("base", world / "umm", []),
            ("raw", last, ["--weights", "raw"]),
            ("ema", last, ["--weights", "ema"]),
        ]
    )
    assert len({base, raw, ema}) == 3


def test_generate_reads_a_text_file(world: Path) -> None:
    (world / "prompts.txt").write_text("a red circle\n\ntwo blue squares\n")
    out = world / "generated/text"
    prompts = ["--prompts", str(world / "prompts.txt"), "--out", str(out), "--num-steps", "3", "--no-think"]
    assert main(["generate", "--checkpoint", str(world / "umm"), *prompts]) == 0
    rows = [json.loads(line) for line in (out / "trajectories.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["reasoning"]) for row in rows] == [("a red circle", ""), ("two blue squares", "")]


# --------------------------------------------------------------------- swapped by YAML alone


def test_lora_trains_adapters_and_generates(world: Path) -> None:
    (world / "lora.yaml").write_text(
        yaml.safe_dump({"model": {"init_args": {"trainable": {"lora": {"rank": 2, "alpha": 4}}}}})
    )
    assert fit(world, "--config", str(world / "lora.yaml"), "--run.name=lora", *UNMEASURED) == 0
    folder = world / "runs/lora/version_0"
    assert saved(folder)["state_dict"] and all("lora_" in name for name in saved(folder)["state_dict"])
    drawn = generated(world, "lora", folder / "checkpoints/last.ckpt")
    assert drawn["0000.png"] != generated(world, "without lora", world / "umm")["0000.png"]


def tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor in a nest of dicts."""
    if isinstance(value, dict):
        return [tensor for inner in value.values() for tensor in tensors(inner)]
    return [value] if torch.is_tensor(value) else []


def test_an_8_bit_optimizer_is_a_change_of_yaml(world: Path) -> None:
    # Only tensors of at least min_8bit_size numbers are kept in 8 bits; this model has none as large as the default.
    swap = {"class_path": "bitsandbytes.optim.AdamW8bit", "init_args": {"lr": 1.0e-3, "min_8bit_size": 256}}
    (world / "8bit.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"optimizer": swap}}}))
    assert fit(world, "--config", str(world / "8bit.yaml"), "--run.name=8bit", *UNMEASURED) == 0
    states = tensors(saved(world / "runs/8bit/version_0")["optimizer_states"][0]["state"])
    assert any(state.dtype == torch.uint8 for state in states)


def test_bench_measures_and_compares(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", DEMO, "--config", str(world / "tiny.yaml"), "--updates", "1", "--random-weights"]
    change = "model.init_args.update.micro_batch_size=1"
    assert main(["bench", *arguments, "--compare", change, "--json", str(world / "bench.json")]) == 0
    costs = json.loads((world / "bench.json").read_text())["costs"]
    for cost in costs.values():
        assert cost["images_per_second"] > 0 and cost["tokens_per_second"] > 0 and cost["peak_bytes"] > 1e8
        phases = {name: seconds for name, seconds in cost["seconds"].items() if name != "total"}
        assert {*PHASES, "other"} == set(phases)
        assert sum(phases.values()) == pytest.approx(cost["seconds"]["total"])
    assert costs[change]["ratio"]["replay"] == costs[change]["seconds"]["replay"] / costs["base"]["seconds"]["replay"]
    printed = capsys.readouterr().out
    assert "rollout_image" in printed and "B/A" in printed and f"B: {change}" in printed
    assert not (world / "runs/tiny").exists(), "a measurement leaves nothing behind"


# --------------------------------------------------------------------- bad input


def yaml_with(**model: Any) -> str:
    return yaml.safe_dump({"model": {"init_args": model}})


def class_of(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def half_written(world: Path, run: Path) -> None:
    """`half`: a checkpoint folder whose weights were cut off; `empty`: one without; `half.ckpt`: a run's, cut off."""
    for name in ("half", "empty"):
        if not (world / name).exists():
            shutil.copytree(world / "umm", world / name)
    (world / "empty/ema.safetensors").unlink(missing_ok=True)
    weights = (world / "umm/ema.safetensors").read_bytes()
    (world / "half/ema.safetensors").write_bytes(weights[: len(weights) // 2])
    last = (run / "checkpoints/last.ckpt").read_bytes()
    (run / "checkpoints/half.ckpt").write_bytes(last[: len(last) // 2])


DETECTOR = class_of("project.shapes.judge.DetectorJudge")
# name: (YAML laid over the others, exit code, parts of the message)
BAD_YAML: dict[str, tuple[str, int, list[str]]] = {
    "unknown key at the top": ("modle: 1\n", 2, ["bad.yaml:1", "'modle'", "did you mean 'model'"]),
    "unknown nested key": (
        yaml_with(sampler={"window": {"siez": 2}}),
        2,
        ["bad.yaml:5", "'siez'", "did you mean 'size'"],
    ),
    "unknown key of the guidance": (
        yaml_with(task=class_of("project.tasks.reasoning_t2i.ReasoningT2I", guidance={"txt": 2.0})),
        2,
        ["bad.yaml:7", "'txt'", "did you mean 'text'"],
    ),
    "misspelt class": (
        yaml_with(sampler={"transition": class_of("project.samplers.FlowSED")}),
        2,
        ["bad.yaml:5", "FlowSED", "did you mean 'FlowSDE'"],
    ),
    "misspelt module": (
        yaml.safe_dump({"rewards": [class_of("project.rewards.dvrewrd.DVReward", judge=DETECTOR)]}),
        2,
        ["bad.yaml:2", "dvrewrd.DVReward is now project.rewards.DVReward"],
    ),
    "misspelt argument of a judge's reward": (
        yaml.safe_dump({"rewards": [class_of("project.rewards.dvreward.DVReward", judge=DETECTOR, agregation="all")]}),
        2,
        ["bad.yaml:4", "'agregation'", "did you mean 'aggregation'"],
    ),
    "misspelt argument of the optimizer": (
        yaml_with(optimizer=class_of("torch.optim.AdamW", weight_decy=0.1)),
        2,
        ["bad.yaml:6", "'weight_decy'", "did you mean 'weight_decay'"],
    ),
    "no reward": ("rewards: []\n", 1, ["rewards", "DVReward"]),
    "a group of one": (yaml_with(num_generations=1), 1, ["num_generations=1", "2 or more"]),
    "a window larger than the evaluations": (
        yaml_with(sampler={"schedule": {"num_steps": 5}, "window": {"size": 5, "range": [0, 4]}}),
        1,
        ["window.size=5", "num_steps", "from 1 to 4"],
    ),
    "a window behind the evaluations": (
        yaml_with(sampler={"schedule": {"num_steps": 5}, "window": {"range": [2, 6]}}),
        1,
        ["window.range=(2, 6)", "num_steps", "<= 4"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_YAML)
def test_bad_yaml_is_one_message(world: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    text, code, parts = BAD_YAML[case]
    (world / "bad.yaml").write_text(text)
    assert fit(world, "--config", str(world / "bad.yaml"), "--run.name=bad") == code
    check(world, capsys, parts)


def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], str]:
    """Prompt file whose second row is changed."""

    def write(world: Path) -> str:
        rows = (world / "train.jsonl").read_text().splitlines()
        changed = change(json.loads(rows[1]))
        rows[1] = changed if isinstance(changed, str) else json.dumps(changed)
        (world / "bad.jsonl").write_text("\n".join(rows) + "\n")
        return f"--data.init_args.train={world}/bad.jsonl"

    return write


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


# name: (option, parts of the message)
BAD_DATA: dict[str, tuple[Callable[[Path], str], list[str]]] = {
    "no JSON": (rewritten(lambda row: '{"prompt": "a red'), ["bad.jsonl:2", "is no JSON"]),
    "no prompt": (rewritten(lambda row: without(row, "prompt")), ["bad.jsonl:2", "lacks 'prompt'"]),
    "no questions": (
        rewritten(lambda row: without(row, "semantic_questions", "quality_questions")),
        ["bad.jsonl:2", "no semantic question", "decompose"],
    ),
    "no file": (lambda world: "--data.init_args.train=nowhere.jsonl", ["no prompt file nowhere.jsonl"]),
    "too few prompts": (lambda world: "--data.init_args.prompts_per_update=9", ["8 training prompt(s)", "9"]),
    "no checkpoint folder": (
        lambda world: f"--model.init_args.policy.init_args.directory={world}/nowhere",
        ["nowhere", "give a folder, or a hub id"],
    ),
    "no weights": (
        lambda world: f"--model.init_args.policy.init_args.directory={world}/empty",
        ["empty/ema.safetensors is missing"],
    ),
    "half-written weights": (
        lambda world: f"--model.init_args.policy.init_args.directory={world}/half",
        ["half/ema.safetensors", "damaged or half-written"],
    ),
    "no run checkpoint": (lambda world: f"--ckpt_path={world}/nowhere.ckpt", ["no checkpoint", "nowhere.ckpt"]),
    "half-written run checkpoint": (
        lambda world: f"--ckpt_path={world}/runs/whole/version_0/checkpoints/half.ckpt",
        ["half.ckpt", "half-written"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_message(world: Path, run: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    option, parts = BAD_DATA[case]
    half_written(world, run)
    assert fit(world, "--run.name=bad", option(world)) == 1
    check(world, capsys, parts)


BAD_GENERATE: dict[str, tuple[list[str], list[str]]] = {
    "no folder": (["--checkpoint", "nowhere/at/all"], ["nowhere/at/all", "give a folder"]),
    "half-written weights": (["--checkpoint", "half"], ["half/ema.safetensors", "half-written"]),
    "half-written run": (["--checkpoint", "runs/whole/version_0/checkpoints/half.ckpt"], ["half.ckpt", "half-written"]),
    "a run that is not whole": (["--checkpoint", "alone.ckpt"], ["config.yaml is missing", "run folder whole"]),
    "no prompts": (["--checkpoint", "umm", "--prompts", "nowhere.txt"], ["no prompt file nowhere.txt"]),
    "a size that cannot be": (["--checkpoint", "umm", "--height", "50"], ["50x64", "multiples of 16"]),
    "one point": (["--checkpoint", "umm", "--num-steps", "1"], ["num_steps=1", "2 or more"]),
}


@pytest.mark.parametrize("case", BAD_GENERATE)
def test_bad_generation_is_one_message(
    world: Path, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    arguments, parts = BAD_GENERATE[case]
    half_written(world, run)
    shutil.copy(run / "checkpoints/last.ckpt", world / "alone.ckpt")
    monkeypatch.chdir(world)
    assert main(["generate", "--prompts", "val.jsonl", "--out", "bad", *arguments]) == 1
    check(world, capsys, parts)
    assert not [file.name for file in Path().glob("bad/*") if not file.name.startswith(".")]


def check(world: Path, capsys: pytest.CaptureFixture[str], parts: list[str]) -> None:
    """One clear message, and nothing was trained."""
    stderr = capsys.readouterr().err
    assert stderr.count("error: ") == 1 and "Traceback" not in stderr, stderr
    message = stderr[stderr.index("error: ") :]
    assert len(message.strip().splitlines()) <= 2 and len(message) < 700, message
    for part in parts:
        assert part in message, message
    begun = [file for pattern in ("*.ckpt", "metrics.csv") for file in (world / "runs").glob(f"bad/**/{pattern}")]
    assert not begun, f"something was measured or trained before: {begun}"
