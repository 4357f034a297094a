"""The command line as a user meets it: what a run leaves behind, how it goes on, what bad input says."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from project.__main__ import main
from tests.helpers import ROOT, toys
from tests.helpers.toys import GOOD, write_place


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with two prompt files and a good configuration."""
    monkeypatch.chdir(tmp_path)
    return write_place(tmp_path)


def config(**replaced: str) -> str:
    """Writes `bad.yaml`: GOOD with texts replaced."""
    text = GOOD
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    Path("bad.yaml").write_text(text)
    return "bad.yaml"


def fit(*arguments: str) -> int:
    return main(["fit", "--config", "good.yaml", *arguments])


def checkpoint(folder: str) -> dict:
    return torch.load(Path(folder) / "checkpoints/last.ckpt", weights_only=True)


def test_a_run_leaves_its_folder_and_the_next_one_gets_a_new_number(place: Path) -> None:
    assert fit() == 0
    folder = place / "runs/toy/version_0"
    names = {p.name.split(".")[0] if "tfevents" in p.name else p.name for p in folder.iterdir()}
    assert {"config.yaml", "checkpoints", "metrics.csv", "results.json", "evaluations", "events"} <= names
    results = json.loads((folder / "results.json").read_text())
    assert results["before"] == results["after"] == {"length": 2.0, "by_kind": {"any": 2.0}}
    assert (results["updates"], results["seed"]) == (6, 3)
    assert checkpoint(str(folder))["updates"] == 6
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [float(row["reward/mean"]) for row in rows if row["reward/mean"]] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if row["length/length"]] == ["0", "6"]
    outcomes = [json.loads(line) for line in (folder / "evaluations/length_6.jsonl").read_text().splitlines()]
    assert sorted(outcome["length"] for outcome in outcomes) == [1, 2, 3]
    # The saved configuration is complete: it starts the same run.
    assert main(["fit", "--config", str(folder / "config.yaml")]) == 0
    again = place / "runs/toy/version_1"
    assert checkpoint(str(again))["order"] == checkpoint(str(folder))["order"]
    assert yaml.safe_load((again / "config.yaml").read_text()) == yaml.safe_load((folder / "config.yaml").read_text())


@pytest.mark.parametrize("stop, steps", [(2, 3), (6, 3), (8, 1)], ids=["mid_epoch", "epoch_end", "second_epoch"])
def test_resumed_equals_uninterrupted(place: Path, stop: int, steps: int) -> None:
    """`steps` optimizer steps an update: nothing may count updates by them."""
    common = ("--trainer.max_epochs=3", f"--model.init_args.steps={steps}", "--trainer.limit_val_batches=0")
    assert fit(*common, "--run.name=whole") == 0
    assert fit(*common, "--run.name=parts", f"--trainer.max_steps={stop * steps}") == 0
    parts = "runs/parts/version_0"
    assert checkpoint(parts)["updates"] == stop
    assert fit(*common, "--run.name=parts", "--ckpt_path", f"{parts}/checkpoints/last.ckpt") == 0
    assert not Path("runs/parts/version_1").exists()
    whole, resumed = checkpoint("runs/whole/version_0"), checkpoint(parts)
    assert len(whole["order"]) == 18 and resumed["order"] == whole["order"]
    assert torch.equal(resumed["state_dict"]["net.weight"], whole["state_dict"]["net.weight"])
    assert {n: r["momentum_buffer"] for n, r in resumed["optimizer_states"][0]["state"].items()} == {
        n: r["momentum_buffer"] for n, r in whole["optimizer_states"][0]["state"].items()
    }
    whole_csv, parts_csv = (Path(f"runs/{n}/version_0/metrics.csv").read_text() for n in ("whole", "parts"))
    assert parts_csv == whole_csv


def test_resumed_with_validation_in_the_epoch(place: Path) -> None:
    common = ("--trainer.max_epochs=2", "--trainer.val_check_interval=2")
    assert fit(*common, "--run.name=whole") == 0
    assert fit(*common, "--run.name=parts", "--trainer.max_steps=4") == 0
    parts = "runs/parts/version_0"
    before = json.loads(Path(parts, "results.json").read_text())["before"]
    assert fit(*common, "--ckpt_path", f"{parts}/checkpoints/last.ckpt") == 0
    assert checkpoint(parts)["order"] == checkpoint("runs/whole/version_0")["order"]
    results = json.loads(Path(parts, "results.json").read_text())
    assert results["before"] == before and results["updates"] == 12


def test_the_last_update_is_measured_wherever_training_stops(place: Path) -> None:
    assert fit("--trainer.max_steps=4") == 0
    folder = place / "runs/toy/version_0"
    results = json.loads((folder / "results.json").read_text())
    assert results["updates"] == 4 and results["after"]["length"] == 2.0
    assert "\n4,2.0," in (folder / "metrics.csv").read_text()
    assert sorted(p.name for p in (folder / "evaluations").iterdir()) == ["length_0.jsonl", "length_4.jsonl"]


def test_validate_measures_into_a_folder_of_its_own(place: Path) -> None:
    assert fit() == 0
    ckpt = "runs/toy/version_0/checkpoints/last.ckpt"
    assert main(["validate", "--config", "good.yaml", "--ckpt_path", ckpt]) == 0
    assert (place / "runs/toy/version_1/evaluations/length_6.jsonl").is_file()
    assert json.loads((place / "runs/toy/version_1/results.json").read_text())["after"]["length"] == 2.0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_the_boundary_and_says_how_to_go_on(sent: signal.Signals, caplog: Any) -> None:
    handler = signal.getsignal(sent)
    # The toy sends the signal to its own process in the middle of its third update.
    assert fit("--trainer.max_epochs=2", f"--model.init_args.send={int(sent)}") == 128 + sent
    folder = "runs/toy/version_0"
    assert checkpoint(folder)["updates"] == 3
    ckpt = f"{folder}/checkpoints/last.ckpt"
    assert f"python -m project fit --config {folder}/config.yaml --ckpt_path {ckpt}" in caplog.text
    assert signal.getsignal(sent) == handler
    # The command of the message ends where an uninterrupted run ends.
    assert main(["fit", "--config", f"{folder}/config.yaml", "--ckpt_path", ckpt, "--model.init_args.send=0"]) == 0
    assert fit("--trainer.max_epochs=2") == 0
    assert checkpoint(folder)["order"] == checkpoint("runs/toy/version_1")["order"]


def test_a_signal_during_validation_leaves_it(caplog: Any) -> None:
    text = GOOD.replace(
        "tests.helpers.toys.LengthBenchmark",
        f"tests.helpers.toys.LengthBenchmark\n    init_args: {{send: {int(signal.SIGINT)}}}",
    )
    Path("good.yaml").write_text(text)
    assert fit() == 128 + signal.SIGINT
    assert "before the first update" in caplog.text


BAD_FILES = {
    "unknown_top": ({"run:\n": "foo: 1\nrun:\n"}, ["bad.yaml:2", "'foo'"]),
    "empty_top": ({"run:\n": "benchmark:\nrun:\n"}, ["bad.yaml:2", "'benchmark'", "did you mean 'benchmarks'"]),
    "unknown_trainer": ({"max_epochs": "max_epoch"}, ["bad.yaml:20", "'max_epoch'", "did you mean 'max_epochs'"]),
    "wrong_type": ({"max_epochs: 1": "max_epochs: many"}, ["bad.yaml:20", "trainer.max_epochs", "'many'", "int"]),
    "model_class": ({"tests.helpers.toys.Tiny": "tests.helpers.toys.Tini"}, ["bad.yaml:5", "tests.helpers.toys.Tini", "did you mean 'Tiny'"]),
    "model_module": (
        {"project.datamodule": "project.datamodul"},
        ["bad.yaml:12", "is now project.datamodule.PromptDataModule"],
    ),
    "not_a_module": ({"path: tests.helpers.toys.Tiny": "path: tests.helpers.toys.Net"}, ["bad.yaml:5", "tests.helpers.toys.Net is no LightningModule"]),
    "nested_class": ({"tests.helpers.toys.Net": "tests.helpers.toys.Nett"}, ["bad.yaml:8", "tests.helpers.toys.Nett", "did you mean 'Net'"]),
    "nested_argument": ({"depth: 2": "dept: 2"}, ["bad.yaml:10", "'dept' of tests.helpers.toys.Net", "did you mean 'depth'"]),
    "nested_type": ({"depth: 2": "depth: deep"}, ["bad.yaml:10", "depth", "'deep'", "int"]),
    "data_argument": ({"val: val.txt": "vall: val.txt"}, ["bad.yaml:15", "'vall'", "did you mean 'val'"]),
    "missing_argument": ({"    net:\n      class_path: tests.helpers.toys.Net\n      init_args:\n        depth: 2\n": "    lr: 1\n"},
                         ["bad.yaml:5", "tests.helpers.toys.Tiny lacks 'net'"]),
    "empty": ({"\n      init_args:\n        depth: 2": "\n      init_args:"}, ["bad.yaml:9", "'init_args'"]),
    "reward_class": ({"tests.helpers.toys.Length\n": "tests.helpers.toys.Lenght\n"}, ["bad.yaml:26", "tests.helpers.toys.Lenght", "did you mean 'Length'"]),
    "reward_kind": ({"tests.helpers.toys.Length\n": "tests.helpers.toys.LengthBenchmark\n"}, ["bad.yaml:26", "is no Reward"]),
    "benchmark_argument": ({"tests.helpers.toys.LengthBenchmark\n": "tests.helpers.toys.LengthBenchmark\n    init_args:\n      x: 1\n"},
                           ["bad.yaml:30", "'x' of tests.helpers.toys.LengthBenchmark"]),
    "syntax": ({"name: toy": "name: [toy"}, ["bad.yaml:", "is no YAML"]),
    "twice": ({"run:\n": "run:\n  name: a\n"}, ["bad.yaml:4", "'name'", "second time"]),
    "no_data_class": ({"project.datamodule.PromptDataModule": "PromptDataModul"}, ["bad.yaml:12", "PromptDataModul"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_configuration_is_one_message(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    replaced, expected = BAD_FILES[case]
    assert main(["fit", "--config", config(**replaced)]) == 2
    check_message(capsys, expected)


BAD_ARGUMENTS = {
    "abbreviation": (["--trainer.max_epoch", "3"], 2, ["--trainer.max_epoch", "did you mean trainer.max_epochs"]),
    "unknown": (["--foo", "3"], 2, ["--foo"]),
    "no_dashes": (["train"], 2, ["'train'"]),
    "no_value": (["--trainer.max_epochs"], 2, ["trainer.max_epochs", "expected one argument"]),
    "nested": (["--model.net.dep", "3"], 2, ["'dep' of tests.helpers.toys.Net", "did you mean 'depth'"]),
    "no_config": (["--config", "none.yaml"], 2, ["none.yaml"]),
    "no_checkpoint": (["--ckpt_path", "none.ckpt"], 1, ["there is no checkpoint none.ckpt"]),
    "half_checkpoint": (["--ckpt_path", "half.ckpt"], 1, ["half.ckpt is no complete checkpoint"]),
    "foreign_checkpoint": (["--ckpt_path", "foreign.ckpt"], 1, ["foreign.ckpt is no complete checkpoint"]),
    "foreign_zip": (["--ckpt_path", "foreign.zip"], 1, ["foreign.zip is no complete checkpoint"]),
    "best": (["--ckpt_path", "best"], 1, ["--ckpt_path best: name a file"]),
    "folder": (["--ckpt_path", "sharded"], 1, ["sharded is a folder", "give a file such as last.ckpt"]),
    "root_is_a_file": (["--run.root", "bad.jsonl"], 1, ["bad.jsonl/toy cannot be made"]),
    "value_on_the_command_line": (["--trainer.max_epochs", "four"], 2, ["error: trainer.max_epochs is 'four': give"]),
    "no_prompts": (["--data.init_args.train", "none.txt"], 1, ["there is no prompt file none.txt"]),
    "bad_prompts": (["--data.init_args.train", "bad.jsonl"], 1, ["bad.jsonl:2", "is no JSON"]),
    "refused_by_model": (["--model.init_args.lr=-1"], 1, ["lr = -1.0: give a positive number"]),
    "too_few_prompts": (["--data.init_args.prompts_per_update=13"], 1, ["12 training prompt(s)", "13"]),
    "root_dir": (["--trainer.default_root_dir=x"], 1, ["run.root"]),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_one_message(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = [torch.zeros(1000)]
    torch.save(whole, "half.ckpt")
    Path("half.ckpt").write_bytes(Path("half.ckpt").read_bytes()[:700])
    torch.save({"a": 1}, "foreign.ckpt")
    with zipfile.ZipFile("foreign.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    Path("bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    Path("sharded").mkdir()
    Path("sharded/.metadata").write_bytes(b"")
    arguments, code, expected = BAD_ARGUMENTS[case]
    assert fit(*arguments) == code
    check_message(capsys, expected)


def check_message(capsys: pytest.CaptureFixture[str], expected: list[str]) -> None:
    stderr = capsys.readouterr().err
    message = stderr[stderr.index("error: ") :]
    for part in expected:
        assert part in message
    assert len(message.strip().splitlines()) <= 2 and len(message) < 500 and "Traceback" not in stderr


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--debug", "--model.init_args.lr=-1") == 1
    assert "Traceback" in capsys.readouterr().err


def test_one_seed_reaches_model_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--seed_everything=7", "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed_everything"] == 7
    assert fit("--seed_everything=7") == 0
    assert fit("--seed_everything=8") == 0
    one, other = (checkpoint(f"runs/toy/version_{n}") for n in (0, 1))
    assert one["order"] != other["order"] and (one["seed"], other["seed"]) == (7, 8)


def test_help_lists_every_command_without_importing_torch() -> None:
    code = (
        "import sys; from project.__main__ import main; assert main(['--help']) == 0; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("fit", "validate", "test", "predict", "generate"):
        assert f"\n  {command} " in done.stdout


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generat"]) == 2
    check_message(capsys, ["'generat'", "did you mean 'generate'"])
    assert main(["generate", "--nosuch", "1"]) == 2
    assert main([]) == 2


def test_last_is_that_of_the_newest_run_that_has_one(place: Path) -> None:
    assert fit("--trainer.max_steps=2", "--trainer.max_epochs=3") == 0
    assert fit("--trainer.max_steps=4", "--trainer.max_epochs=3") == 0
    (place / "runs/toy/version_2/checkpoints").mkdir(parents=True)
    assert fit("--trainer.max_epochs=3", "--trainer.max_steps=6", "--ckpt_path", "last") == 0
    assert checkpoint("runs/toy/version_1")["updates"] == 6 and checkpoint("runs/toy/version_0")["updates"] == 2


def test_two_processes_do_not_train_in_one_folder(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit("--trainer.max_steps=2") == 0
    folder = Path("runs/toy/version_0")
    resume = ("--trainer.max_steps=4", "--ckpt_path", str(folder / "checkpoints/last.ckpt"))
    hold = "import sys; from pathlib import Path; import project.core.run_folder as r; f = r.lock(Path(sys.argv[1]));"
    command = [sys.executable, "-c", hold + "print('held', flush=True); sys.stdin.read()", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        assert fit(*resume) == 1
        assert f"another process trains in {folder}" in capsys.readouterr().err
        assert checkpoint(str(folder))["updates"] == 2
        other.kill()
    assert fit(*resume) == 0 and checkpoint(str(folder))["updates"] == 4


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a `fit` that fails says, without a traceback or a parser's tree."""
    assert fit(*arguments) in (1, 2)
    error = capsys.readouterr().err
    assert "Traceback" not in error and "Subtypes" not in error
    return error


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return f"--config={name}"


def test_mistakes_in_a_file_of_ones_own_are_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)
    head = "import torch\nfrom project.rewards.base import Reward, RewardOutput\n\n\nclass Mine(Reward):\n"
    scored = "return RewardOutput(reward_N=torch.zeros(len(trajectories)))\n"
    bodies = {
        "broken_colon": f"    def score(self, trajectories)\n        {scored}",
        "broken_type": "    def __init__(self, power):\n        pass\n\n    def score(self, trajectories):\n"
        f"        {scored}",
    }
    messages = {
        "broken_colon": r"broken_colon.py:6: expected ':': 'def score\(self, trajectories\)': correct this line",
        "broken_type": r"b.yaml:1: argument 'power' of broken_type.Mine has no type: give it one, such as `power: float`",
    }
    for name, body in bodies.items():
        (place / f"{name}.py").write_text(head + body)
        arguments = ", init_args: {power: 2}" if name == "broken_type" else ""
        file = write("b.yaml", f"rewards: [{{class_path: {name}.Mine{arguments}}}]")
        error = said(capsys, file)
        assert re.search(messages[name], error), error


def test_an_unknown_key_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for text, wrong in (
        ("modle: {}", "'modle' at the top level: did you mean 'model'?"),
        ("trainer: {callback: {}}", "'callback' in 'trainer': did you mean 'callbacks'?"),
        ("model: {init_args: {net: {init_args: {depht: {}}}}}", "'depht' of tests.helpers.toys.Net: did you mean"),
        ("rewards: [{class_path: tests.helpers.toys.Length, init_args: {waight: {}}}]", "did you mean 'weight'?"),
    ):
        message = said(capsys, write("more.yaml", text))
        assert "more.yaml:1: unknown key" in message and wrong in message


def test_an_old_class_path_is_refused_by_file_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    old = "project.judges.shapes.DetectorJudge"
    more = write("more.yaml", f"rewards:\n- class_path: project.rewards.DVReward\n  init_args:\n    judge: {old}\n")
    assert f"more.yaml:4: {old} is now project.shapes.DetectorJudge" in said(capsys, more)
    assert f"{old} is now project.shapes.DetectorJudge" in said(capsys, f"--model.class_path={old}")


def test_options_that_the_model_has_its_own_for_are_refused_with_those(capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, "--trainer.gradient_clip_val=1.0")
    assert "trainer.gradient_clip_val = 1.0" in message and "model.init_args.gradient_clip" in message
    message = said(capsys, write("more.yaml", "trainer:\n  accumulate_grad_batches: 4\n"))
    assert "more.yaml:2: trainer.accumulate_grad_batches = 4" in message and "micro_batch_size" in message
    assert fit("--trainer.accumulate_grad_batches=1", "--trainer.max_steps=1") == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "more.yaml:1: trainer.accelerator is 'gpu'" in said(
        capsys, write("more.yaml", "trainer: {accelerator: gpu}")
    )
    assert "trainer.accelerator is 'cuda'" in said(capsys, "--trainer.accelerator=cuda")


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
@pytest.mark.parametrize("text", ["logger: {}", "logger: [{}]"])
def test_a_logger_whose_package_is_missing(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = text.replace("{}", "{class_path: lightning.pytorch.loggers.WandbLogger}")
    message = said(capsys, write("more.yaml", f"trainer:\n  {entry}\n"))
    assert "more.yaml:2: lightning.pytorch.loggers.WandbLogger needs wandb" in message and "pip install" in message


def test_a_slurm_allocation_without_srun(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    message = said(capsys)
    assert "SLURM_NTASKS=2" in message and "env -u SLURM_NTASKS" in message and "srun" in message


def test_a_run_in_which_nothing_could_be_learned_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(self: Any, prompts: Any, batch_idx: int) -> Any:
        self.gave_up = "3 updates in a row were skipped"
        self.trainer.should_stop = True
        return step(self, prompts, batch_idx)

    step = toys.Tiny.training_step
    monkeypatch.setattr(toys.Tiny, "training_step", give_up)
    message = said(capsys)
    assert "nothing could be learned: 3 updates in a row were skipped" in message
    assert "saved as runs/toy/version_0/checkpoints/last.ckpt" in message


def test_a_checkpoint_that_the_disk_refuses_is_named_and_the_old_one_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(checkpoint: Any, stream: Any) -> None:
        raise OSError(27, "File too large")

    assert fit("--trainer.max_steps=2") == 0
    last = Path("runs/toy/version_0/checkpoints/last.ckpt")
    before = last.read_bytes()
    monkeypatch.setattr("torch.save", full)
    message = said(capsys, "--trainer.max_steps=4", f"--ckpt_path={last}")
    assert f"{last} could not be written (File too large)" in message and "ulimit -f" in message
    assert "Stopped after update 2" in message and last.read_bytes() == before


def test_nothing_is_said_that_nobody_could_mend(place: Path) -> None:
    """In a process of its own: pytest takes warnings and logs away."""
    command = [sys.executable, "-m", "project", "fit", "--config", "good.yaml", "--trainer.max_steps=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert lines == [
        "Seed set to 3",
        "trains:   1 of 1 parameters of Tiny: net 1",
        "rewards:  Length",
        "data:     12 prompts, 2 an update; 3 to evaluate on (length)",
        "writes:   runs/toy/version_0",
        "watch:    tensorboard --logdir runs/toy/version_0",
        "`Trainer.fit` stopped: `max_steps=2` reached.",
        "scores:   python -m project results runs/toy/version_0",
    ]
    assert (place / "runs/toy/version_0/before_after.png").is_file()
