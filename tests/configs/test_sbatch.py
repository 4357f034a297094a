"""The file for SLURM, with stand-ins for SLURM's commands, the judge's server and the training."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers import ROOT

FILE = ROOT / "configs/bagel/train.sbatch"
STAND_INS = {
    # Starts the command that follows the options.
    "srun": 'echo "srun $*" >> log\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"',
    "scontrol": 'echo "scontrol $*" >> log\nif [ "$1" = show ]; then echo node0; echo node1; fi',
    "scancel": 'echo "scancel $*" >> log\nkill -TERM "$(cat training)"',
    "curl": 'echo "curl $*" >> log\n[ -e judging ]',
    "vllm": 'echo "vllm on $CUDA_VISIBLE_DEVICES: $*" >> log\n[ -e no_judge ] && exit 3\n'
    "echo $$ > judging\nexec sleep 100",
    # Saves and ends when it is told to, a moment later; or ends with the code that is written down.
    "python": 'echo "python $*" >> log\n[ -e code ] && exit "$(cat code)"\n'
    "trap 'sleep 0.5; echo saved >> log; exit 143' TERM\necho $$ > training\nwhile true; do sleep 0.1; done",
    "sleep": "exec /bin/sleep $(( $1 > 99 ? 100 : 0 )).2",
}  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    return tmp_path


def start(cluster: Path, *options: str) -> subprocess.Popen[str]:
    variables = {
        "PATH": f"{cluster / 'bin'}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(cluster),
        "SLURM_NTASKS_PER_NODE": "7",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "node[0-1]",
        "SLURM_JOB_ID": "42",
    }
    return subprocess.Popen(["bash", str(FILE), *options], env=variables, cwd="/", stderr=subprocess.PIPE, text=True)


def log(cluster: Path) -> list[str]:
    return (cluster / "log").read_text().splitlines()


def is_there(cluster: Path, name: str) -> bool:
    for _ in range(100):
        if (cluster / name).exists():
            return True
        time.sleep(0.1)
    return False


def ended(process: int) -> bool:
    for _ in range(50):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*.sbatch")), ids=lambda file: file.name)
def test_it_is_a_script_of_bash(file: Path) -> None:
    done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
    lines = file.read_text().splitlines()
    settings = [n for n, line in enumerate(lines) if line.startswith("#SBATCH ")]
    commands = [n for n, line in enumerate(lines) if line and not line.startswith("#")]
    assert settings and max(settings) < min(commands), "SLURM reads no settings behind the first command"


def test_a_signal_is_handed_on_and_the_job_queues_itself_again(cluster: Path) -> None:
    with start(cluster, "--config", "mine.yaml") as job:
        assert is_there(cluster, "training")
        job.send_signal(signal.SIGTERM)
        assert job.wait(20) == 143
    said = log(cluster)
    training = next(line for line in said if line.startswith("python"))
    assert (
        training
        == "python -m project fit --config mine.yaml --trainer.devices 7 --trainer.num_nodes 2 --ckpt_path last"
    )
    assert said[-3:] == ["scancel --signal=TERM 42.1", "saved", "scontrol requeue 42"]
    assert ended(int((cluster / "judging").read_text())), "the judge is left behind"


@pytest.mark.parametrize("code", [0, 1, 137])
def test_the_end_and_an_error_are_not_queued_again(cluster: Path, code: int) -> None:
    (cluster / "code").write_text(str(code))
    with start(cluster) as job:
        assert job.wait(20) == code
    said = log(cluster)
    assert not any("requeue" in line for line in said)
    assert any(line.startswith("python -m project fit --config configs/bagel/rt2i.yaml ") for line in said)
    judge = next(line for line in said if line.startswith("vllm"))
    guide = (ROOT / "configs/bagel/README.md").read_text()
    served = re.search(r"^CUDA_VISIBLE_DEVICES=7 vllm (serve .*)$", guide, re.M)
    assert served and judge == f"vllm on 7: {' '.join(shlex.split(served[1]))}", "as the guide starts it"
    asked = [line.rpartition(" ")[2] for line in said if line.startswith("curl")]
    assert {"http://node0:8000/v1/models", "http://node1:8000/v1/models"} == set(asked)


def test_a_judge_that_does_not_start_is_told(cluster: Path) -> None:
    (cluster / "no_judge").touch()
    with start(cluster) as job:
        said = job.communicate(timeout=20)[1]
    assert job.returncode == 1 and "the judge of node0 did not start" in said
    assert not any(line.startswith("python") for line in log(cluster))
