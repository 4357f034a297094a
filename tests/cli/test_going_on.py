"""`fit --ckpt_path last`: one command starts, goes on, ends; what differs is said; a refused start leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from project.__main__ import main
from project.cli.lightning_cli import agree_on_checkpoint
from tests.helpers import ROOT
from tests.helpers.toys import write_place

RUNS = Path("runs/toy")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_place(tmp_path)


def fit(*arguments: str) -> int:
    return main(["fit", "--config", "good.yaml", *arguments])


def again(*arguments: str) -> int:
    """The command of a job that is started again and again."""
    return fit("--ckpt_path", "last", "--trainer.max_epochs=2", *arguments)


def folders() -> list[str]:
    return sorted(folder.name for folder in RUNS.glob("version_*"))


def order(version: int) -> list[str]:
    saved: list[str] = torch.load(RUNS / f"version_{version}/checkpoints/last.ckpt", weights_only=True)["order"]
    return saved


def test_one_command_starts_goes_on_and_is_finished(caplog: pytest.LogCaptureFixture) -> None:
    assert again(f"--model.init_args.send={int(signal.SIGTERM)}") == 128 + signal.SIGTERM
    assert "--ckpt_path last: no run of runs/toy has a checkpoint yet: starts afresh" in caplog.text
    assert again() == 0
    assert "--ckpt_path last: goes on from runs/toy/version_0/checkpoints/last.ckpt" in caplog.text
    assert folders() == ["version_0"] and len(order(0)) == 12
    before = {file: file.read_bytes() for file in RUNS.rglob("*") if file.is_file()}
    caplog.clear()
    assert again() == 0
    assert "finished: 12 of 12 updates, runs/toy/version_0/checkpoints/last.ckpt" in caplog.text
    assert before == {file: file.read_bytes() for file in RUNS.rglob("*") if file.is_file()}, "nothing was touched"
    # A longer run of the same name is not finished.
    assert again("--trainer.max_epochs=3") == 0 and len(order(0)) == 18
    assert fit("--trainer.max_epochs=2", "--run.name=whole") == 0
    whole = torch.load("runs/whole/version_0/checkpoints/last.ckpt", weights_only=True)["order"]
    assert order(0)[:12] == whole


def test_a_run_that_was_not_measured_at_its_end_is_not_finished(caplog: pytest.LogCaptureFixture) -> None:
    assert fit("--trainer.max_steps=4") == 0
    results = RUNS / "version_0/results.json"
    whole = json.loads(results.read_text())
    results.write_text(json.dumps({**whole, "after": None, "measured_updates": None}))  # as if it died just then
    assert fit("--trainer.max_steps=4", "--ckpt_path=last") == 0
    assert "finished" not in caplog.text and json.loads(results.read_text())["after"] == whole["after"]
    assert fit("--trainer.max_steps=4", "--ckpt_path=last") == 0
    assert "finished: 4 of 4 updates" in caplog.text


def test_a_newer_run_without_a_checkpoint(caplog: pytest.LogCaptureFixture) -> None:
    """An unfinished older one goes on; beside a finished one the newer starts afresh."""
    assert fit("--trainer.max_steps=2") == 0
    died = RUNS / "version_1"
    died.mkdir()
    (died / ".lock").touch()
    assert again("--trainer.max_steps=4") == 0
    assert "goes on from runs/toy/version_0/checkpoints/last.ckpt (runs/toy/version_1 has no checkpoint)" in caplog.text
    assert len(order(0)) == 4 and folders() == ["version_0", "version_1"]
    assert again("--trainer.max_steps=4") == 0
    assert "is finished, runs/toy/version_1 has no checkpoint yet: starts afresh" in caplog.text
    assert folders() == ["version_0", "version_1", "version_2"] and len(order(2)) == 4
    # What only measured is no run that could have died.
    assert main(["validate", "--config=good.yaml", "--ckpt_path=last"]) == 0
    assert again("--trainer.max_steps=4") == 0
    assert "finished: 4 of 4 updates, runs/toy/version_2" in caplog.text


@pytest.mark.parametrize("command", ["validate", "test"])
def test_what_does_not_train_needs_a_checkpoint(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--config=good.yaml", "--ckpt_path=last"]) == 1
    assert "--ckpt_path last: no run of runs/toy has a checkpoint" in capsys.readouterr().err
    assert folders() == []


@pytest.mark.parametrize(
    "wrong",
    ["--data.init_args.train=none.txt", "--data.init_args.prompts_per_update=13", "--model.init_args.lr=-1",
     "--rewards=[{class_path: tests.helpers.toys.Length}, {class_path: project.rewards.DVReward}]"],
)  # fmt: skip
def test_a_refused_start_uses_no_version(wrong: str) -> None:
    assert fit(wrong) != 0
    assert folders() == []
    if wrong.startswith("--data.init_args.train"):
        assert fit("--trainer.max_steps=2") == 0 and folders() == ["version_0"]
        before = {file: file.read_bytes() for file in RUNS.rglob("*") if file.is_file()}
        assert fit(wrong) == 1 and fit(wrong, "--ckpt_path=last") == 1
        assert folders() == ["version_0"]
        assert before == {file: file.read_bytes() for file in before}


def test_a_run_that_did_something_keeps_its_folder() -> None:
    send = f"--model.init_args.send={int(signal.SIGINT)}"
    assert fit(send) == 128 + signal.SIGINT and folders() == ["version_0"]


def test_a_config_of_the_run_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--trainer.max_steps=2") == 0
    (RUNS / "version_0/config.yaml").write_text("model: [")
    assert fit("--ckpt_path=last", "--trainer.max_steps=4") == 1
    said = capsys.readouterr().err
    assert "runs/toy/version_0/config.yaml" in said and "is no YAML" in said and "last.ckpt was trained with" in said


def test_what_differs_from_the_run_that_goes_on_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert fit("--trainer.max_steps=2") == 0
    changed = ["--data.init_args.shuffle=false", "--model.init_args.lr=0.5", "--model.init_args.net.init_args.depth=3"]
    longer = ["--ckpt_path=last", "--trainer.max_steps=4"]
    assert fit(*longer) == 0
    assert "other settings" not in caplog.text, "a longer run is the same run"
    assert fit(*longer, "--trainer.max_steps=6", *changed, "--seed_everything=4") == 0
    said = next(message for message in caplog.messages if message.startswith("other settings"))
    assert said.splitlines()[1:] == [
        "  seed_everything: 4, was 3",
        "  model.init_args.net.init_args.depth: 3, was 2",
        "  model.init_args.lr: 0.5, was 0.1",
        "  data.init_args.shuffle: False, was True",
    ]
    # The settings of a run are those that it was last started with.
    caplog.clear()
    assert fit(*longer, "--trainer.max_steps=5", *changed, "--seed_everything=4") == 0
    assert "other settings" not in caplog.text


@pytest.mark.parametrize("own", ["a.ckpt", "b.ckpt", None])
def test_every_rank_goes_on_from_the_checkpoint_of_rank_0(own: str | None) -> None:
    """As rank 1 sees it, where rank 0 goes on from a.ckpt."""
    strategy = SimpleNamespace(broadcast=lambda value: "a.ckpt", reduce_boolean_decision=lambda value, all: value)
    trainer: Any = SimpleNamespace(strategy=strategy, global_rank=1)
    if own == "a.ckpt":
        agree_on_checkpoint(trainer, own)
        return
    with pytest.raises(ValueError, match=f"rank 0 goes on from a.ckpt.*rank 1 finds {own or 'none'}.*nodes share"):
        agree_on_checkpoint(trainer, own)


@pytest.mark.slow
def test_torchrun_starts_goes_on_and_ends_with_one_command(place: Path) -> None:
    """Two ranks; in the first run both get SIGTERM in the third update."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "project"]
    command += ["fit", "--config=good.yaml", "--trainer.devices=2", "--trainer.strategy=ddp", "--ckpt_path=last"]
    command += ["--trainer.max_epochs=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = []
    for send in (signal.SIGTERM, 0, 0):
        options = [f"--model.init_args.send={int(send)}"]
        done = subprocess.run(command + options, env=environment, capture_output=True, text=True, timeout=200)
        said.append(done.stderr)
        assert (done.returncode == 0) == (send == 0), done.stderr
    assert "starts afresh" in said[0] and "Stopped after update 3" in said[0]
    assert "goes on from runs/toy/version_0/checkpoints/last.ckpt" in said[1]
    assert "finished: 12 of 12 updates" in said[2]
    assert folders() == ["version_0"] and len(order(0)) == 12


@pytest.mark.slow
def test_ranks_that_see_different_files_are_refused(place: Path) -> None:
    """Rank 1 of the two works in a folder without the checkpoint, as if its node had a disk of its own."""
    assert fit("--trainer.max_steps=2") == 0
    elsewhere = place / "elsewhere"
    write_place_of_rank_1(place, elsewhere)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
        "TORCHELASTIC_RUN_ID": "two",
    }
    environment["MASTER_PORT"] = str(free_port())
    command = [sys.executable, "-m", "project", "fit", "--config=good.yaml", "--trainer.devices=2"]
    command += ["--trainer.strategy=ddp", "--ckpt_path=last", "--trainer.max_steps=4"]
    ranks = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate((place, elsewhere))
    ]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1], said
    for text in said:
        assert "rank 0 goes on from runs/toy/version_0/checkpoints/last.ckpt, and not every rank finds the same" in text
    assert "rank 1 finds none" in said[1] and folders() == ["version_0"] and len(order(0)) == 2


def write_place_of_rank_1(place: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    for name in ("train.txt", "val.txt", "good.yaml"):
        shutil.copy(place / name, elsewhere)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
